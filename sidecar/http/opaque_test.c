/* The opaque codec in both roles, against an owner that writes down what it is told. */
#include "http/opaque.h"

#include <criterion/criterion.h>
#include <stdio.h>

struct owner {
    struct exchange exchange; /* first */
    struct codec *codec;
    struct arena arena;
    char log[256];
    uint64_t grant_on_data;
    bool is_refusing;
    unsigned outputs;
    unsigned inputs_wanted;
};

static void note(struct owner *owner, const char *text)
{
    size_t used = strlen(owner->log);
    snprintf(owner->log + used, sizeof(owner->log) - used, "%s;", text);
}

static struct owner *owner_of(struct exchange *exchange)
{
    return (struct owner *)(void *)exchange;
}

static void on_data(struct exchange *exchange, struct buffer *data)
{
    char text[128] = {0};
    cr_assert_lt(data->size, sizeof(text));
    buffer_copy_out(data, data->size, (uint8_t *)text);
    note(owner_of(exchange), text);
    exchange_grant(exchange, owner_of(exchange)->grant_on_data);
}

static void on_end(struct exchange *exchange)
{
    note(owner_of(exchange), "<end>");
}

static void on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    static const char *const names[] = {"cancel",     "refused",   "protocol",
                                        "connection", "truncated", "internal"};
    cr_assert(error_is(error));
    note(owner_of(exchange), names[reason]);
    cr_assert_null(exchange->codec);
}

static void on_room(struct exchange *exchange)
{
    note(owner_of(exchange), "<room>");
}

static void on_done(struct exchange *exchange)
{
    note(owner_of(exchange), "<done>");
    cr_assert_null(exchange->codec);
}

static const struct exchange_events exchange_events = {.on_data = on_data,
                                                       .on_end = on_end,
                                                       .on_reset = on_reset,
                                                       .on_room = on_room,
                                                       .on_done = on_done};

static struct exchange *on_exchange(struct codec *codec)
{
    struct owner *owner = codec->owner;
    if (owner->is_refusing) {
        return NULL;
    }
    note(owner, "<exchange>");
    owner->exchange = (struct exchange){.events = &exchange_events, .arena = &owner->arena};
    return &owner->exchange;
}

static void on_output(struct codec *codec)
{
    ((struct owner *)codec->owner)->outputs++;
}

static void on_input_wanted(struct codec *codec)
{
    ((struct owner *)codec->owner)->inputs_wanted++;
}

static const struct codec_events codec_events = {
    .on_exchange = on_exchange, .on_output = on_output, .on_input_wanted = on_input_wanted};

static void start(struct owner *owner, enum codec_role role)
{
    struct error error =
        opaque_create(role, &codec_events, owner, block_source_heap(), &owner->codec);
    cr_assert(!error_is(error));
    codec_set_room(owner->codec, 1000);
}

static void receive(struct owner *owner, struct buffer *input, const char *text)
{
    cr_assert(!error_is(buffer_append(input, block_source_heap(), bytes_from_string(text))));
    cr_assert(!error_is(codec_receive(owner->codec, input)));
}

static void send(struct owner *owner, const char *text)
{
    struct buffer data = {0};
    cr_assert(!error_is(buffer_append(&data, block_source_heap(), bytes_from_string(text))));
    cr_assert(!error_is(exchange_send_data(&owner->exchange, &data)));
    cr_assert(buffer_is_empty(&data));
}

Test(opaque, begins_before_any_byte_so_that_servers_may_speak_first)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    cr_assert_str_eq(owner.log, "");
    receive(&owner, &input, "");
    cr_assert_str_eq(owner.log, "<exchange>;");
    cr_assert(owner.exchange.is_tunnel);
    cr_assert_eq(owner.codec->exchanges_open, 1);
    receive(&owner, &input, "");
    cr_assert_str_eq(owner.log, "<exchange>;", "once only");
    codec_destroy(owner.codec);
    cr_assert_str_eq(owner.log, "<exchange>;connection;");
}

Test(opaque, delivers_no_more_than_was_granted)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "abcdef");
    cr_assert_eq(input.size, 6);
    exchange_grant(&owner.exchange, 2);
    cr_assert_eq(owner.inputs_wanted, 1);
    receive(&owner, &input, "");
    cr_assert_str_eq(owner.log, "<exchange>;ab;");
    owner.grant_on_data = 3; /* a grant within the event counts at once */
    exchange_grant(&owner.exchange, 1);
    receive(&owner, &input, "");
    cr_assert_str_eq(owner.log, "<exchange>;ab;c;def;");
    cr_assert_eq(owner.exchange.received_bytes, 6);
    cr_assert_eq(owner.exchange.granted_bytes, 3);
    codec_destroy(owner.codec);
}

Test(opaque, an_end_takes_effect_behind_the_last_byte)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "abc");
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    cr_assert_str_eq(owner.log, "<exchange>;");
    exchange_grant(&owner.exchange, 10);
    receive(&owner, &input, "");
    cr_assert_str_eq(owner.log, "<exchange>;abc;<end>;");
    send(&owner, "answer");
    cr_assert(!owner.codec->is_send_end_wanted, "a half-close leaves the other half open");
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    cr_assert(owner.codec->is_send_end_wanted);
    cr_assert_eq(owner.codec->out.size, 6);
    codec_set_room(owner.codec, 1000);
    cr_assert_str_eq(owner.log, "<exchange>;abc;<end>;<done>;");
    cr_assert(owner.codec->is_close_wanted);
    codec_destroy(owner.codec);
    cr_assert_str_eq(owner.log, "<exchange>;abc;<end>;<done>;");
}

Test(opaque, our_end_first_is_a_half_close_too)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_CLIENT);
    owner.exchange = (struct exchange){.events = &exchange_events, .arena = &owner.arena};
    cr_assert(!error_is(exchange_open(owner.codec, &owner.exchange)));
    cr_assert(error_is(exchange_open(owner.codec, &(struct exchange){0})), "one exchange only");
    exchange_grant(&owner.exchange, 100);
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    receive(&owner, &input, "late");
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    cr_assert_str_eq(owner.log, "late;<end>;<done>;");
    codec_destroy(owner.codec);
}

Test(opaque, resets_pass_as_resets)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "kept back");
    codec_receive_end(owner.codec, CODEC_END_RESET);
    cr_assert_str_eq(owner.log, "<exchange>;connection;");
    cr_assert(owner.codec->is_abort_wanted);
    codec_destroy(owner.codec);

    struct owner other = {0};
    start(&other, CODEC_ROLE_SERVER);
    buffer_clear(&input);
    receive(&other, &input, "");
    exchange_reset(&other.exchange, EXCHANGE_RESET_CANCEL);
    cr_assert(other.codec->is_abort_wanted);
    cr_assert_str_eq(other.log, "<exchange>;", "no event follows one's own reset");
    exchange_reset(&other.exchange, EXCHANGE_RESET_CANCEL);
    codec_destroy(other.codec);
}

Test(opaque, a_truncated_end_is_no_end)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "");
    exchange_grant(&owner.exchange, 100);
    receive(&owner, &input, "half");
    codec_receive_end(owner.codec, CODEC_END_TRUNCATED);
    cr_assert_str_eq(owner.log, "<exchange>;half;truncated;");
    codec_destroy(owner.codec);
}

Test(opaque, tells_when_there_is_room_again)
{
    struct owner owner = {0};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "");
    codec_set_room(owner.codec, 4);
    cr_assert_eq(exchange_room(&owner.exchange), 4);
    send(&owner, "12345");
    cr_assert_eq(exchange_room(&owner.exchange), 0);
    cr_assert_gt(owner.outputs, 0);
    buffer_clear(&owner.codec->out);
    codec_set_room(owner.codec, 0);
    cr_assert_str_eq(owner.log, "<exchange>;");
    codec_set_room(owner.codec, 3);
    codec_set_room(owner.codec, 4);
    cr_assert_str_eq(owner.log, "<exchange>;<room>;", "once for each wait");
    codec_destroy(owner.codec);
}

Test(opaque, a_refused_exchange_is_an_abort)
{
    struct owner owner = {.is_refusing = true};
    struct buffer input = {0};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, &input, "x");
    cr_assert(owner.codec->is_abort_wanted);
    cr_assert(buffer_is_empty(&input));
    codec_destroy(owner.codec);
}

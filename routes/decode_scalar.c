/* Single values: see decode_scalar.h. */
#include "routes/decode_scalar.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

enum {
    KNOWN_WORDS_BYTES_MAX = 256,
};

/* Where a value goes: sizes are checked against the table's width. */
void route_decode_write_number(void *out, const struct route_field *field, uint64_t value)
{
    switch (field->width) {
    case 1:
        *(uint8_t *)out = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)out = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)out = (uint32_t)value;
        break;
    case 8:
        *(uint64_t *)out = value;
        break;
    default:
        CHECK(field->width == 0); /* a field that is only checked */
        break;
    }
}

/* Would YAML take this plain scalar for a number, a truth value or null, so that an API server
 * would see no text? */
static bool is_other_than_text(struct bytes text)
{
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_is(text, words[i])) {
            return true;
        }
    }
    struct bytes digits = text;
    if (digits.size > 0 && (digits.data[0] == '-' || digits.data[0] == '+')) {
        digits = bytes_skip(digits, 1);
    }
    bool has_digit = false;
    bool has_dot = false;
    for (size_t i = 0; i < digits.size; i++) {
        uint8_t byte = digits.data[i];
        if (byte >= '0' && byte <= '9') {
            has_digit = true;
        } else if (byte == '.' && !has_dot) {
            has_dot = true;
        } else if ((byte == 'e' || byte == 'E') && has_digit && i + 1 < digits.size) {
            size_t sign = digits.data[i + 1] == '-' || digits.data[i + 1] == '+';
            uint64_t exponent = 0;
            return !error_is(
                bytes_parse_decimal(bytes_skip(digits, i + 1 + sign), UINT64_MAX, &exponent));
        } else {
            return false;
        }
    }
    return has_digit;
}

/* What YAML 1.1 takes for a truth value and we, with YAML 1.2, for text. */
static bool is_old_truth_value(struct bytes text)
{
    static const char *const words[] = {"yes", "no", "on", "off"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_equal_nocase(text, bytes_from_string(words[i]))) {
            return true;
        }
    }
    return false;
}

/* The text of `node`, or an error and {NULL, 0}. */
struct bytes route_decode_read_text(struct route_decoder *decoder, const struct route_node *node)
{
    if (node->type != ROUTE_NODE_SCALAR) {
        route_decode_fail(decoder, node, "wrong-type", "must be text, not %s",
                          route_decode_describe(node));
        return (struct bytes){0};
    }
    struct bytes text = route_node_text(node);
    if (node->is_plain && (is_other_than_text(text) || route_node_is_null(node))) {
        route_decode_fail(decoder, node, "wrong-type", "must be text: write \"%s\" in quotes",
                          node->text);
        return (struct bytes){0};
    }
    if (node->is_plain && is_old_truth_value(text)) {
        route_decode_warn(decoder, node, "truth-value", NULL,
                          "kubectl takes a plain %s for a truth value; write it in quotes",
                          node->text);
    }
    return text;
}

/* An API server counts characters, not bytes. */
static int64_t count_characters(struct bytes text)
{
    int64_t count = 0;
    for (size_t i = 0; i < text.size; i++) {
        count += (text.data[i] & 0xc0) != 0x80;
    }
    return count;
}

static void check_length(struct route_decoder *decoder, const struct route_node *node,
                         struct bytes text, int64_t min, int64_t max)
{
    if ((int64_t)text.size < min) {
        route_decode_fail(decoder, node, "too-short", "must not be empty");
    } else if (max > 0 && count_characters(text) > max) {
        route_decode_fail(decoder, node, "too-long",
                          "must be at most %lld characters long, not %lld", (long long)max,
                          (long long)count_characters(text));
    }
}

void route_guess_consider(struct route_guess *guess, const char *candidate)
{
    struct bytes text = bytes_from_string(candidate);
    if (route_text_is_nearer(guess->word, text, &guess->best)) {
        guess->nearest = candidate;
    }
    if (route_text_is_short_for(guess->word, text)) {
        guess->longer = candidate;
        guess->longer_count++;
    }
}

const char *route_guess_best(const struct route_guess *guess)
{
    if (guess->nearest != NULL) {
        return guess->nearest;
    }
    return guess->longer_count == 1 ? guess->longer : NULL;
}

/* The one of `words` that was probably meant by `text`, or NULL. */
static const char *nearest_word(const struct route_word *words, struct bytes text)
{
    struct route_guess guess = {.word = text, .best = ROUTE_TEXT_FAR};
    for (; words->word != NULL; words++) {
        route_guess_consider(&guess, words->word);
    }
    return route_guess_best(&guess);
}

/* All words, for a message: "A, B or C". */
static void list_words(const struct route_word *words, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (const struct route_word *word = words; word->word != NULL && used < size; word++) {
        const char *before = word == words ? "" : word[1].word == NULL ? " or " : ", ";
        int written = snprintf(out + used, size - used, "%s%s", before, word->word);
        used += written < 0 ? size : (size_t)written;
    }
}

/* A word of the table; NULL, with a diagnostic, when it is not one of them. */
static const struct route_word *read_word(struct route_decoder *decoder,
                                          const struct route_node *node,
                                          const struct route_word *words)
{
    struct bytes text = route_node_text(node);
    for (const struct route_word *word = words; word->word != NULL; word++) {
        if (bytes_is(text, word->word)) {
            return word;
        }
    }
    char known[KNOWN_WORDS_BYTES_MAX];
    list_words(words, known, sizeof(known));
    char message[ROUTE_DECODE_MESSAGE_BYTES_MAX];
    snprintf(message, sizeof(message), "%s is not supported; known: %s",
             route_decode_describe(node), known);
    enum route_severity severity =
        decoder->schema->is_strict ? ROUTE_SEVERITY_ERROR : ROUTE_SEVERITY_WARNING;
    route_decode_report(decoder, severity, route_decode_place(decoder, node), "unsupported-value",
                        nearest_word(words, text), message);
    if (decoder->unsupported == ROUTE_SUPPORTED) {
        decoder->unsupported = ROUTE_UNSUPPORTED_VALUE;
    }
    return NULL;
}

/* Check `text` by the field and copy it; {NULL, 0} when it was refused. */
struct bytes route_decode_take_text(struct route_decoder *decoder, const struct route_field *field,
                                    const struct route_node *node, int64_t min, int64_t max)
{
    struct bytes text = route_decode_read_text(decoder, node);
    if (text.data == NULL) {
        return text;
    }
    if (field->words != NULL) {
        (void)read_word(decoder, node, field->words);
    }
    check_length(decoder, node, text, min, max);
    bool is_length_right = (int64_t)text.size >= min && (max == 0 || count_characters(text) <= max);
    if (is_length_right && !route_text_has_form(text, field->form)) {
        route_decode_fail(decoder, node, "invalid-value", "must be %s, not \"%s\"",
                          route_text_form_name(field->form), node->text);
    }
    struct bytes copy = arena_copy(decoder->arena, text);
    if (copy.data == NULL) {
        decoder->is_out_of_memory = true;
    }
    return copy;
}

/* Whole decimal numbers only: no sign but for a clear message, no 0x50, no 1e3. */
bool route_decode_read_number(struct route_decoder *decoder, const struct route_node *node,
                              int64_t min, int64_t max, uint64_t *ret_value)
{
    struct bytes text = route_node_text(node);
    if (node->type != ROUTE_NODE_SCALAR || !node->is_plain) {
        route_decode_fail(decoder, node, "wrong-type", "must be a whole number, not %s",
                          node->type == ROUTE_NODE_SCALAR ? "text in quotes"
                                                          : route_decode_describe(node));
        return false;
    }
    bool is_negative = text.size > 1 && text.data[0] == '-';
    struct bytes digits = is_negative ? bytes_skip(text, 1) : text;
    uint64_t value = 0;
    struct error error = bytes_parse_decimal(digits, INT64_MAX, &value);
    if (error.code == ERROR_SYNTAX) {
        route_decode_fail(decoder, node, "wrong-type", "must be a whole number, not %s",
                          node->text);
        return false;
    }
    if (digits.size > 1 && digits.data[0] == '0') {
        /* To kubectl 010 is eight, to JSON it is nothing at all. */
        route_decode_fail(decoder, node, "wrong-type",
                          "must be a whole number without leading zeros, not %s", node->text);
        return false;
    }
    bool is_too_big = max > 0 && (int64_t)value > max;
    if (error_is(error) || (is_negative && value > 0) || (int64_t)value < min || is_too_big) {
        route_decode_fail(decoder, node, "out-of-range", "must be %lld to %lld, not %s",
                          (long long)min, (long long)max, node->text);
        return false;
    }
    *ret_value = value;
    return true;
}

void route_decode_int(struct route_decoder *decoder, const struct route_field *field,
                      const struct route_node *node, void *out)
{
    uint64_t value = 0;
    if (field->words == NULL) {
        if (route_decode_read_number(decoder, node, field->min, field->max, &value)) {
            route_decode_write_number(out, field, value);
        }
        return;
    }
    if (!route_decode_read_number(decoder, node, 0, INT32_MAX, &value)) {
        return;
    }
    const struct route_word *word = read_word(decoder, node, field->words);
    route_decode_write_number(out, field, word == NULL ? 0 : word->value);
}

void route_decode_enum(struct route_decoder *decoder, const struct route_field *field,
                       const struct route_node *node, void *out)
{
    if (route_decode_read_text(decoder, node).data == NULL) {
        return;
    }
    const struct route_word *word = read_word(decoder, node, field->words);
    route_decode_write_number(out, field, word == NULL ? 0 : word->value);
}

void route_decode_bool(struct route_decoder *decoder, const struct route_node *node, void *out)
{
    struct bytes text = route_node_text(node);
    bool is_true = bytes_equal_nocase(text, BYTES("true"));
    if (node->type != ROUTE_NODE_SCALAR || !node->is_plain ||
        (!is_true && !bytes_equal_nocase(text, BYTES("false")))) {
        route_decode_fail(decoder, node, "wrong-type", "must be true or false, not %s",
                          route_decode_describe(node));
        return;
    }
    *(bool *)out = is_true;
}

void route_decode_duration(struct route_decoder *decoder, const struct route_node *node, void *out)
{
    struct bytes text = route_decode_read_text(decoder, node);
    int64_t value_ms = ROUTE_DURATION_ABSENT;
    if (text.data == NULL) {
        return;
    }
    if (error_is(route_duration_parse(text, &value_ms))) {
        route_decode_fail(decoder, node, "invalid-value",
                          "must be a duration such as 300ms, 10s or 1m30s, not \"%s\"", node->text);
        return;
    }
    *(int64_t *)out = value_ms;
}

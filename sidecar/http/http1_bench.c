/*
 * What the codec costs: nanoseconds for a request parsed by the server role and written by the
 * client role, and for the response on its way back, through two codecs joined by moves, as a proxy
 * does.
 *
 *     http1_bench [REQUESTS]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/check.h"
#include "http/http1.h"
#include "http/http1_parse.h"
#include "http/http1_write.h"

static const char small_request[] = "GET /api/v1/orders/8731?expand=items HTTP/1.1\r\n"
                                    "Host: orders.shop.svc.cluster.local:8080\r\n"
                                    "User-Agent: Go-http-client/1.1\r\n"
                                    "X-Request-Id: 4f9c1d2ae7b84d0f9a6f\r\n"
                                    "Accept-Encoding: gzip\r\n\r\n";

static const char browser_request[] =
    "GET /static/js/main.7f3a9c1e.js?v=20240607 HTTP/1.1\r\n"
    "Host: www.example.org\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\n"
    "sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9\r\n"
    "Cookie: session=5f2b7c9d0e1a4b3c8d7e6f5a4b3c2d1e; theme=dark\r\n\r\n";

static const char response[] =
    "HTTP/1.1 200 OK\r\n"
    "Server: app\r\n"
    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 100\r\n\r\n"
    "{\"id\":8731,\"state\":\"shipped\",\"items\":[{\"sku\":\"a-1\",\"count\":2},"
    "{\"sku\":\"b-7\",\"count\":1}],\"total\":1999}";

/* Blocks that are kept, as the slabs of a worker are. */
struct pool {
    struct block_source source; /* first */
    struct block *free;
};

enum {
    BLOCK_BYTES = 4096
};

static void release(struct block *block)
{
    struct pool *pool = block->supplier;
    block->next = pool->free;
    pool->free = block;
}

static struct block *take(struct block_source *source, size_t size_min)
{
    struct pool *pool = (struct pool *)(void *)source;
    CHECK(size_min <= BLOCK_BYTES);
    struct block *block = pool->free;
    if (block != NULL) {
        pool->free = block->next;
    } else {
        block = calloc(1, sizeof(*block) + BLOCK_BYTES);
        CHECK(block != NULL);
        block->data = (uint8_t *)(block + 1);
        block->capacity = BLOCK_BYTES;
        block->release = release;
        block->supplier = pool;
    }
    block->refs = 1;
    block->used = 0;
    return block;
}

struct side {
    struct exchange downstream; /* first */
    struct exchange upstream;
    struct codec *server;
    struct codec *client;
    struct arena arena;
    struct pool pool;
    uint64_t done;
};

static void must(struct error error)
{
    CHECK(!error_is(error));
}

static struct side *side_up(struct exchange *exchange)
{
    return (struct side *)(void *)((char *)exchange - offsetof(struct side, upstream));
}

static void on_up_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    must(exchange_send_head(&side_up(exchange)->downstream, head, is_end));
    exchange_grant(exchange, 65536);
}

static void on_up_data(struct exchange *exchange, struct buffer *data)
{
    must(exchange_send_data(&side_up(exchange)->downstream, data));
}

static void on_up_end(struct exchange *exchange)
{
    must(exchange_send_end(&side_up(exchange)->downstream));
}

static void on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    (void)exchange;
    (void)reason;
    (void)error;
}

static void on_done(struct exchange *exchange)
{
    (void)exchange;
}

static const struct exchange_events up_events = {.on_head = on_up_head,
                                                 .on_data = on_up_data,
                                                 .on_end = on_up_end,
                                                 .on_reset = on_reset,
                                                 .on_done = on_done};

static void on_down_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct side *side = (struct side *)(void *)exchange;
    side->upstream = (struct exchange){.events = &up_events, .arena = &side->arena};
    must(exchange_open(side->client, &side->upstream));
    must(exchange_send_head(&side->upstream, head, is_end));
}

static void on_down_done(struct exchange *exchange)
{
    struct side *side = (struct side *)(void *)exchange;
    side->done++;
}

static const struct exchange_events down_events = {
    .on_head = on_down_head, .on_reset = on_reset, .on_done = on_down_done};

static struct exchange *on_exchange(struct codec *codec)
{
    struct side *side = codec->owner;
    arena_reset(&side->arena);
    side->downstream = (struct exchange){.events = &down_events, .arena = &side->arena};
    return &side->downstream;
}

static void on_codec(struct codec *codec)
{
    (void)codec;
}

static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    (void)codec;
    (void)status;
    (void)reason;
}

static const struct codec_events codec_events = {.on_exchange = on_exchange,
                                                 .on_malformed = on_malformed,
                                                 .on_output = on_codec,
                                                 .on_input_wanted = on_codec,
                                                 .on_idle = on_codec};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void give(struct side *side, struct codec *codec, const char *bytes, size_t size)
{
    struct buffer input = {0};
    struct block *block = take(&side->pool.source, size);
    memcpy(block->data, bytes, size);
    block->used = (uint32_t)size;
    must(buffer_append_slice(&input, block, bytes_make(block->data, size)));
    block_unref(block);
    must(codec_receive(codec, &input));
    CHECK(buffer_is_empty(&input));
}

static void flush(struct codec *codec)
{
    buffer_consume(&codec->out, codec->out.size);
    codec_set_room(codec, 65536);
}

/* One request and its response through both codecs. */
static void exchange_once(struct side *side, const char *request, size_t size)
{
    give(side, side->server, request, size);
    flush(side->client);
    give(side, side->client, response, sizeof(response) - 1);
    flush(side->server);
}

static void measure_exchange(const char *name, const char *request, size_t size, uint64_t count)
{
    static const struct http1_options options = {.date = "Sun, 06 Nov 1994 08:49:37 GMT"};
    struct side side = {.pool = {.source = {.take = take}}};
    arena_init(&side.arena, 16384, 1 << 20);
    must(http1_create(CODEC_ROLE_SERVER, &codec_events, &side, &side.pool.source, &options,
                      &side.server));
    must(http1_create(CODEC_ROLE_CLIENT, &codec_events, &side, &side.pool.source, &options,
                      &side.client));
    flush(side.server);
    flush(side.client);
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        exchange_once(&side, request, size);
    }
    uint64_t spent = now_ns() - begin;
    CHECK(side.done == count);
    printf("%-22s %4zu B  exchange      %6.1f ns\n", name, size, (double)spent / (double)count);
    codec_destroy(side.server);
    codec_destroy(side.client);
    arena_finish(&side.arena);
}

static void measure_parts(const char *name, const char *request, size_t size, uint64_t count)
{
    static struct http1_parsed parsed;
    struct pool pool = {.source = {.take = take}};
    struct buffer out = {0};
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        CHECK(http1_parse_request(bytes_make(request, size), &parsed) == HTTP1_PARSE_DONE);
    }
    uint64_t parse = now_ns() - begin;
    parsed.head.wire = bytes_make(request, size);
    begin = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        must(http1_write_request(&out, &pool.source, &parsed.head, HTTP1_FRAMING_NONE));
        buffer_consume(&out, out.size);
    }
    uint64_t write = now_ns() - begin;
    printf("%-22s %4zu B  parse %6.1f ns, write %6.1f ns\n", name, size,
           (double)parse / (double)count, (double)write / (double)count);
}

int main(int argc, char **argv)
{
    uint64_t count = 1000000;
    if (argc > 1 && error_is(bytes_parse_decimal(bytes_from_string(argv[1]), UINT32_MAX, &count))) {
        fprintf(stderr, "usage: %s [REQUESTS]\n", argv[0]);
        return 2;
    }
    measure_parts("small request", small_request, sizeof(small_request) - 1, count);
    measure_parts("browser request", browser_request, sizeof(browser_request) - 1, count);
    measure_exchange("small request", small_request, sizeof(small_request) - 1, count);
    measure_exchange("browser request", browser_request, sizeof(browser_request) - 1, count);
    return 0;
}

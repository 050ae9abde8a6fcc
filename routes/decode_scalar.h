/*
 * Single values: scalars of YAML to numbers, words, texts and times, with what an API server would
 * have said of them. Private to decode*.c.
 *
 * Of a wrong value a diagnostic is added, and the caller goes on, so that all mistakes of an object
 * are found at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "routes/decode.h"
#include "routes/diagnostic.h"
#include "routes/schema.h"
#include "routes/yaml.h"

enum {
    ROUTE_DECODE_MESSAGE_BYTES_MAX = 768,
};

/* ---- decode.c ---- */

/* Add a diagnostic at `position`; its message begins with the path of what is being decoded. */
void route_decode_report(struct route_decoder *decoder, enum route_severity severity,
                         struct route_position position, const char *code, const char *suggestion,
                         const char *message);

/* The text of a scalar for a message; collections by what they are. */
const char *route_decode_describe(const struct route_node *node);

/* ---- decode_scalar.c ---- */

/* What was probably meant by a word that is not known. */
struct route_guess {
    struct bytes word;
    const char *nearest; /* by mistakes of typing */
    uint32_t best;
    const char *longer; /* that the word is short for */
    uint32_t longer_count;
};

/* Look at one more word that may have been meant; then the one that was, or NULL. */
void route_guess_consider(struct route_guess *guess, const char *candidate);
const char *route_guess_best(const struct route_guess *guess);

/* Put a number where the table's width says. */
void route_decode_write_number(void *out, const struct route_field *field, uint64_t value);

/* The text of a scalar that an API server would take for text; {NULL, 0} when it is none. */
struct bytes route_decode_read_text(struct route_decoder *decoder, const struct route_node *node);

/* The same, checked by the field's words, form and length, and copied; {NULL, 0} when refused. */
struct bytes route_decode_take_text(struct route_decoder *decoder, const struct route_field *field,
                                    const struct route_node *node, int64_t min, int64_t max);

/* A whole decimal number from `min` to `max` (0: any); false when it is none. */
bool route_decode_read_number(struct route_decoder *decoder, const struct route_node *node,
                              int64_t min, int64_t max, uint64_t *ret_value);

/* Decode one value into `out`, by the field. */
void route_decode_int(struct route_decoder *decoder, const struct route_field *field,
                      const struct route_node *node, void *out);
void route_decode_enum(struct route_decoder *decoder, const struct route_field *field,
                       const struct route_node *node, void *out);
void route_decode_bool(struct route_decoder *decoder, const struct route_node *node, void *out);
void route_decode_duration(struct route_decoder *decoder, const struct route_node *node, void *out);

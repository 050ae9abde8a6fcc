/*
 * PCRE2 lives here. Options: bytes and not UTF, because routing must not depend on what the peer
 * calls its encoding; `.` matches any byte and `$` only the end, because the subject is a value and
 * not a text of lines.
 *
 * Most requests do not match most expressions, so what an expression must begin with is taken out
 * of it and compared first: a memcmp instead of a start of the matcher.
 */
#include "routes/regex.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/check.h"

/* Assertions and atomic groups restart the matcher inside itself, each time at the cost of a whole
 * match; this is how often one match may do so. */
#define RESTARTS_MAX 64
#define DEPTH_MAX 16
/* Room for (this - 2) / 6 states at once, far above what routes need. Together with the subject's
 * bound it bounds the time of one match. */
#define WORKSPACE_INTS 2048

struct route_regex {
    pcre2_code *code;
    size_t literal_size;
    uint8_t literal[64]; /* whatever matches begins with this */
};

struct route_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    int workspace[WORKSPACE_INTS];
    uint8_t subject[ROUTE_REGEX_SUBJECT_BYTES_MAX];
};

static struct error refuse(struct route_regex_fault *fault, enum error_code code, size_t offset,
                           const char *text)
{
    if (fault != NULL) {
        fault->offset = offset;
        (void)snprintf(fault->text, sizeof(fault->text), "%s", text);
    }
    return error_make(code, 0);
}

static bool is_one_of(uint8_t byte, struct bytes set)
{
    return bytes_find(set, byte) != set.size;
}

/* What may follow "(?": groups without capture, with a name, or with flags, and assertions. Not:
 * conditions, recursion, callouts, back-references by name. */
static bool is_group_supported(struct bytes after)
{
    if (after.size == 0) {
        return true; /* PCRE2 has the better message */
    }
    switch (after.data[0]) {
    case ':':
    case '|':
    case '>':
    case '=':
    case '!':
    case '<':
    case '\'':
    case '^':
    case '-':
        return true;
    case 'P':
        return after.size > 1 && after.data[1] == '<';
    default:
        return after.data[0] != 'R' && after.data[0] != 'C' && byte_lower(after.data[0]) >= 'a' &&
               byte_lower(after.data[0]) <= 'z';
    }
}

/* Refuse what pcre2_dfa_match would only complain about when it comes to it, in the middle of a
 * request. */
static struct error check_supported(struct bytes pattern, struct route_regex_fault *fault)
{
    for (size_t i = 0; i < pattern.size; i++) {
        struct bytes after = bytes_skip(pattern, i + 1);
        if (pattern.data[i] == '\0') {
            return refuse(fault, ERROR_SYNTAX, i, "a NUL byte");
        }
        if (pattern.data[i] == '\\' && after.size > 0) {
            if (is_one_of(after.data[0], BYTES("gkKCXGQE"))) {
                return refuse(fault, ERROR_SYNTAX, i,
                              "this escape is not supported: back-references, \\K, \\C, \\G, \\X "
                              "and \\Q..\\E are not in the portable dialect");
            }
            i++;
        } else if (bytes_starts_with(after, BYTES("*")) && pattern.data[i] == '(') {
            return refuse(fault, ERROR_SYNTAX, i, "verbs such as (*ACCEPT) are not supported");
        } else if (bytes_starts_with(after, BYTES("?")) && pattern.data[i] == '(' &&
                   !is_group_supported(bytes_skip(after, 1))) {
            return refuse(fault, ERROR_SYNTAX, i,
                          "conditions, recursion and callouts are not supported");
        }
    }
    return OK;
}

/* Skip a bracket expression that begins at `at`; returns the index of its "]", or the size. */
static size_t skip_bracket(struct bytes pattern, size_t at)
{
    at++;
    if (at < pattern.size && pattern.data[at] == '^') {
        at++;
    }
    if (at < pattern.size && pattern.data[at] == ']') {
        at++; /* a "]" in the first place stands for itself */
    }
    while (at < pattern.size && pattern.data[at] != ']') {
        at += pattern.data[at] == '\\' ? 2 : 1;
    }
    return at < pattern.size ? at : pattern.size;
}

struct repeat {
    size_t copies; /* of the item in the program */
    bool is_open;  /* has no end */
};

/* Read what a byte says about the item before it: "*", "+", "{n}", "{n,}" or "{n,m}"; else it is
 * there once. */
static struct repeat read_repeat(struct bytes pattern, size_t at)
{
    struct repeat once = {1, false};
    if (pattern.data[at] == '*' || pattern.data[at] == '+') {
        return (struct repeat){1, true};
    }
    if (pattern.data[at] != '{') {
        return once;
    }
    struct bytes high = bytes_skip(pattern, at + 1);
    size_t end = bytes_find(high, '}');
    if (end == high.size) {
        return once;
    }
    high.size = end;
    struct bytes low = bytes_split(&high, ',');
    uint64_t low_value = 0;
    uint64_t high_value = 0;
    if (error_is(bytes_parse_decimal(low, UINT16_MAX, &low_value))) {
        return once;
    }
    if (high.data == NULL) {
        return (struct repeat){low_value, false};
    }
    bool is_open = error_is(bytes_parse_decimal(high, UINT16_MAX, &high_value));
    return (struct repeat){is_open ? low_value : high_value, is_open};
}

/*
 * How many repeats without an end the program will hold, those within a counted group as often as
 * it is unrolled. Each may keep a state alive to the end of the subject, and the matcher's time for
 * a byte grows with the square of the states.
 */
static size_t count_open_repeats(struct bytes pattern)
{
    enum {
        DEPTH = 64
    };

    size_t open[DEPTH + 1] = {0}; /* of the groups that are open, outermost first */
    size_t depth = 0;
    size_t closed = 0; /* what the item just read holds */
    for (size_t i = 0; i < pattern.size; i++) {
        uint8_t byte = pattern.data[i];
        struct repeat repeat = read_repeat(pattern, i);
        if (byte == '(' && depth < DEPTH) {
            open[++depth] = 0;
            closed = 0;
        } else if (byte == ')' && depth > 0) {
            closed = open[depth--];
            open[depth] += closed;
        } else if (repeat.is_open || repeat.copies > 1) {
            size_t held =
                (repeat.is_open ? 1 : 0) + (repeat.copies > 1 ? closed * (repeat.copies - 1) : 0);
            open[depth] += held;
            closed += held;
        } else if (byte != '?' && byte != '}') {
            closed = 0;
        }
        i = byte == '\\' ? i + 1 : byte == '[' ? skip_bracket(pattern, i) : i;
        if (open[depth] > ROUTE_REGEX_OPEN_REPEATS_MAX) {
            return open[depth];
        }
    }
    while (depth > 0) {
        open[depth - 1] += open[depth];
        depth--;
    }
    return open[0];
}

static bool is_literal(uint8_t byte)
{
    uint8_t lower = byte_lower(byte);
    return (lower >= 'a' && lower <= 'z') || (byte >= '0' && byte <= '9') || byte == '/' ||
           byte == '-' || byte == '_' || byte == ':' || byte == '=' || byte == ',' || byte == '~';
}

/*
 * Collect the bytes with which everything that matches must begin. Timid on purpose: an
 * alternative, a flag or an assertion anywhere means none, and a byte that is followed by a
 * quantifier does not count.
 */
static void find_literal(struct bytes pattern, struct route_regex *regex)
{
    if (bytes_find(pattern, '|') != pattern.size ||
        bytes_find_bytes(pattern, BYTES("(?")) != pattern.size) {
        return;
    }
    size_t at = pattern.size > 0 && pattern.data[0] == '^' ? 1 : 0;
    size_t size = 0;
    while (at < pattern.size && size < sizeof(regex->literal)) {
        uint8_t byte = pattern.data[at];
        size_t next = at + 1;
        if (byte == '\\' && next < pattern.size && is_one_of(pattern.data[next], BYTES("./-_"))) {
            byte = pattern.data[next];
            next++;
        } else if (!is_literal(byte)) {
            break;
        }
        if (next < pattern.size && is_one_of(pattern.data[next], BYTES("*+?{"))) {
            break;
        }
        regex->literal[size++] = byte;
        at = next;
    }
    regex->literal_size = size;
}

static struct error compile(struct bytes pattern, struct route_regex_fault *fault,
                            struct route_regex *regex)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    uint32_t options = PCRE2_ANCHORED | PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF |
                       PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE;
    regex->code = pcre2_compile(pattern.data, pattern.size, options, &code, &offset, NULL);
    if (regex->code == NULL) {
        if (code == 121 /* heap exhausted */) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        PCRE2_UCHAR text[120];
        (void)pcre2_get_error_message(code, text, sizeof(text));
        return refuse(fault, ERROR_SYNTAX, offset, (const char *)text);
    }
    size_t program_bytes = 0;
    uint32_t back_references = 0;
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_SIZE, &program_bytes);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_BACKREFMAX, &back_references);
    if (program_bytes > ROUTE_REGEX_PROGRAM_BYTES_MAX) {
        return refuse(fault, ERROR_LIMIT, 0, "repeats so much that it compiles to over 64 KiB");
    }
    if (back_references > 0) {
        return refuse(fault, ERROR_SYNTAX, 0, "back-references are not supported");
    }
    return OK;
}

struct error route_regex_create(struct bytes pattern, struct route_regex_fault *fault,
                                struct route_regex **ret_regex)
{
    CHECK(ret_regex != NULL);
    if (pattern.size > ROUTE_REGEX_PATTERN_BYTES_MAX) {
        return refuse(fault, ERROR_LIMIT, ROUTE_REGEX_PATTERN_BYTES_MAX, "longer than 1024 bytes");
    }
    TRY(check_supported(pattern, fault));
    if (count_open_repeats(pattern) > ROUTE_REGEX_OPEN_REPEATS_MAX) {
        return refuse(fault, ERROR_LIMIT, 0, "more than 20 repeats without an end (*, +, {n,})");
    }
    struct route_regex *regex = calloc(1, sizeof(*regex));
    if (regex == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct error error = compile(pattern, fault, regex);
    if (error_is(error)) {
        route_regex_destroy(regex);
        return error;
    }
    find_literal(pattern, regex);
    *ret_regex = regex;
    return OK;
}

struct bytes route_regex_literal(const struct route_regex *regex)
{
    return bytes_make(regex->literal, regex->literal_size);
}

void route_regex_destroy(struct route_regex *regex)
{
    if (regex != NULL) {
        pcre2_code_free(regex->code);
        free(regex);
    }
}

enum route_answer route_regex_match(const struct route_regex *regex, struct bytes subject,
                                    struct route_scratch *scratch)
{
    CHECK(regex != NULL);
    CHECK(scratch != NULL);
    if (!bytes_starts_with(subject, bytes_make(regex->literal, regex->literal_size))) {
        return ROUTE_NO;
    }
    if (subject.size > ROUTE_REGEX_SUBJECT_BYTES_MAX) {
        return ROUTE_OVER_LIMIT;
    }
    static const uint8_t nothing[1] = {0}; /* an empty subject still needs an address */
    int result =
        pcre2_dfa_match(regex->code, subject.data != NULL ? subject.data : nothing, subject.size, 0,
                        0, scratch->data, scratch->context, scratch->workspace, WORKSPACE_INTS);
    if (result >= 0) {
        /* The longest match comes first, and only the whole subject counts. (PCRE2_ENDANCHORED
         * would say so, but 10.42 applies it within assertions too: "(?!/a).*" then matches "/ab".)
         */
        return pcre2_get_ovector_pointer(scratch->data)[1] == subject.size ? ROUTE_YES : ROUTE_NO;
    }
    return result == PCRE2_ERROR_NOMATCH ? ROUTE_NO : ROUTE_OVER_LIMIT;
}

uint8_t *route_scratch_subject(struct route_scratch *scratch)
{
    return scratch->subject;
}

struct error route_scratch_create(struct route_scratch **ret_scratch)
{
    CHECK(ret_scratch != NULL);
    struct route_scratch *scratch = calloc(1, sizeof(*scratch));
    if (scratch == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    scratch->data = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    if (scratch->data == NULL || scratch->context == NULL) {
        route_scratch_destroy(scratch);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    (void)pcre2_set_match_limit(scratch->context, RESTARTS_MAX);
    (void)pcre2_set_depth_limit(scratch->context, DEPTH_MAX);
    *ret_scratch = scratch;
    return OK;
}

void route_scratch_destroy(struct route_scratch *scratch)
{
    if (scratch != NULL) {
        pcre2_match_data_free(scratch->data);
        pcre2_match_context_free(scratch->context);
        free(scratch);
    }
}

/*
 * The predicates. They work on the request as it lies in the caller's buffers: repeated fields are
 * compared piece by piece and query parameters are decoded while comparing, so that nothing is
 * copied unless a regular expression needs it in one piece.
 */
#include "routes/candidate.h"

#include "base/check.h"
#include "routes/path.h"

/* ---- Fields ---- */

struct bytes route_field_separator(struct bytes name)
{
    return bytes_equal_nocase(name, BYTES("cookie")) ? BYTES("; ") : BYTES(",");
}

static bool is_host(struct bytes name)
{
    return bytes_equal_nocase(name, BYTES("host"));
}

const struct route_field *route_request_find(const struct route_request *request, struct bytes name)
{
    for (size_t i = 0; i < request->fields_count; i++) {
        const struct route_field *field = route_request_field(request, i);
        if (bytes_equal_nocase(field->name, name)) {
            return field;
        }
    }
    return NULL;
}

/* Take `piece` off the front of `*rest`; false when it does not begin with it. */
static bool eat(struct bytes *rest, struct bytes piece)
{
    if (!bytes_starts_with(*rest, piece)) {
        return false;
    }
    *rest = bytes_skip(*rest, piece.size);
    return true;
}

/* Is the joined value of all fields of that name exactly the wanted one? */
static enum route_answer compare_header(const struct route_value_predicate *header,
                                        const struct route_request *request)
{
    if (is_host(header->name)) {
        return bytes_equal(request->authority, header->value) ? ROUTE_YES : ROUTE_NO;
    }
    struct bytes rest = header->value;
    bool found = false;
    for (size_t i = 0; i < request->fields_count; i++) {
        const struct route_field *field = route_request_field(request, i);
        if (!bytes_equal_nocase(field->name, header->name)) {
            continue;
        }
        if ((found && !eat(&rest, route_field_separator(header->name))) ||
            !eat(&rest, field->value)) {
            return ROUTE_NO;
        }
        found = true;
    }
    return found && rest.size == 0 ? ROUTE_YES : ROUTE_NO;
}

/* Append to the scratch's subject; false when it is full. */
static bool append(uint8_t *subject, size_t *size, struct bytes piece)
{
    if (piece.size > ROUTE_REGEX_SUBJECT_BYTES_MAX - *size) {
        return false;
    }
    if (piece.size != 0) {
        memcpy(subject + *size, piece.data, piece.size);
    }
    *size += piece.size;
    return true;
}

static enum route_answer search_header(const struct route_value_predicate *header,
                                       const struct route_request *request,
                                       struct route_scratch *scratch)
{
    if (is_host(header->name)) {
        return route_regex_match(header->regex, request->authority, scratch);
    }
    struct bytes whole = {0};
    uint8_t *subject = route_scratch_subject(scratch);
    size_t size = 0;
    unsigned found = 0;
    for (size_t i = 0; i < request->fields_count; i++) {
        const struct route_field *field = route_request_field(request, i);
        if (!bytes_equal_nocase(field->name, header->name)) {
            continue;
        }
        if (found == 0) {
            whole = field->value;
        } else if ((found == 1 && !append(subject, &size, whole)) ||
                   !append(subject, &size, route_field_separator(header->name)) ||
                   !append(subject, &size, field->value)) {
            return ROUTE_OVER_LIMIT;
        }
        found++;
    }
    if (found == 0) {
        return ROUTE_NO;
    }
    return route_regex_match(header->regex, found == 1 ? whole : bytes_make(subject, size),
                             scratch);
}

/* ---- Query parameters ---- */

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    uint8_t lower = byte_lower(byte);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Take one byte off `*encoded`, decoded; a "%" that begins nothing stands for itself. */
static uint8_t decode_next(struct bytes *encoded)
{
    uint8_t byte = encoded->data[0];
    size_t taken = 1;
    if (byte == '%' && encoded->size >= 3) {
        int high = hex_digit(encoded->data[1]);
        int low = hex_digit(encoded->data[2]);
        if (high >= 0 && low >= 0) {
            byte = (uint8_t)(high * 16 + low);
            taken = 3;
        }
    }
    *encoded = bytes_skip(*encoded, taken);
    return byte;
}

bool route_query_equal(struct bytes encoded, struct bytes plain)
{
    size_t at = 0;
    while (encoded.size > 0) {
        if (at == plain.size || decode_next(&encoded) != plain.data[at]) {
            return false;
        }
        at++;
    }
    return at == plain.size;
}

size_t route_query_decode(struct bytes encoded, uint8_t *out)
{
    size_t size = 0;
    while (encoded.size > 0) {
        out[size++] = decode_next(&encoded);
    }
    return size;
}

bool route_query_next(struct bytes *query, struct bytes *ret_key, struct bytes *ret_value)
{
    if (query->data == NULL) {
        return false;
    }
    *ret_value = bytes_split(query, '&');
    *ret_key = bytes_split(ret_value, '=');
    return true;
}

static enum route_answer check_query_param(const struct route_value_predicate *param,
                                           const struct route_request *request,
                                           struct route_scratch *scratch)
{
    struct bytes query = request->query;
    struct bytes key;
    struct bytes value;
    while (route_query_next(&query, &key, &value)) {
        if (!route_query_equal(key, param->name)) {
            continue;
        }
        /* Only the first value of a repeated key counts. */
        if (param->regex == NULL) {
            return route_query_equal(value, param->value) ? ROUTE_YES : ROUTE_NO;
        }
        if (value.size > ROUTE_REGEX_SUBJECT_BYTES_MAX) {
            return ROUTE_OVER_LIMIT;
        }
        uint8_t *subject = route_scratch_subject(scratch);
        size_t size = route_query_decode(value, subject);
        return route_regex_match(param->regex, bytes_make(subject, size), scratch);
    }
    return ROUTE_NO;
}

/* ---- gRPC and TLS ---- */

bool route_request_is_grpc(const struct route_request *request)
{
    const struct route_field *type = route_request_find(request, BYTES("content-type"));
    struct bytes grpc = BYTES("application/grpc");
    if (type == NULL || !bytes_equal_nocase(bytes_first(type->value, grpc.size), grpc)) {
        return false;
    }
    return type->value.size == grpc.size || type->value.data[grpc.size] == '+' ||
           type->value.data[grpc.size] == ';';
}

bool route_grpc_split(struct bytes path, struct bytes *ret_service, struct bytes *ret_method)
{
    if (path.size == 0 || path.data[0] != '/') {
        return false;
    }
    struct bytes method = bytes_skip(path, 1);
    struct bytes service = bytes_split(&method, '/');
    if (service.size == 0 || method.size == 0 || bytes_find(method, '/') != method.size) {
        return false;
    }
    *ret_service = service;
    *ret_method = method;
    return true;
}

static enum route_answer check_grpc_part(struct bytes wanted, const struct route_regex *regex,
                                         struct bytes got, struct route_scratch *scratch)
{
    if (wanted.data == NULL) {
        return ROUTE_YES;
    }
    if (regex != NULL) {
        return route_regex_match(regex, got, scratch);
    }
    return bytes_equal(wanted, got) ? ROUTE_YES : ROUTE_NO;
}

static enum route_answer check_grpc_method(const struct route_candidate *candidate,
                                           const struct route_request *request,
                                           struct route_scratch *scratch,
                                           struct route_failure *ret_failure)
{
    struct bytes service = {0};
    struct bytes method = {0};
    if (candidate->service.data == NULL && candidate->method.data == NULL) {
        return ROUTE_YES;
    }
    ret_failure->predicate = ROUTE_PREDICATE_GRPC_SERVICE;
    if (!route_grpc_split(request->path, &service, &method)) {
        return ROUTE_NO;
    }
    enum route_answer answer =
        check_grpc_part(candidate->service, candidate->path_regex, service, scratch);
    if (answer != ROUTE_YES) {
        return answer;
    }
    ret_failure->predicate = ROUTE_PREDICATE_GRPC_METHOD;
    return check_grpc_part(candidate->method, candidate->method_regex, method, scratch);
}

static enum route_answer check_sni(const struct route_candidate *candidate,
                                   const struct route_request *request)
{
    struct bytes name = candidate->path;
    struct bytes sni = request->sni;
    if (name.data == NULL) {
        return ROUTE_YES;
    }
    if (candidate->type == ROUTE_MATCH_EXACT) {
        return bytes_equal_nocase(sni, name) ? ROUTE_YES : ROUTE_NO;
    }
    /* A wildcard stands for one or more labels, and `name` begins with the dot that ends them. */
    return sni.size > name.size && bytes_equal_nocase(bytes_skip(sni, sni.size - name.size), name)
               ? ROUTE_YES
               : ROUTE_NO;
}

/* ---- Candidates ---- */

/* Where and how a path is compared; a regular expression is left to what comes after. */
static bool has_path(const struct route_candidate *candidate, const struct route_request *request)
{
    switch (candidate->type) {
    case ROUTE_MATCH_EXACT:
        return bytes_equal(request->path, candidate->path);
    case ROUTE_MATCH_PREFIX:
        return route_path_has_prefix(request->path, candidate->path);
    case ROUTE_MATCH_REGEX:
        return true;
    case ROUTE_MATCH_UNSUPPORTED:
        break;
    }
    return false;
}

/* One after the other, those with or those without a regular expression. */
static enum route_answer check_values(const struct route_candidate *candidate,
                                      const struct route_request *request,
                                      struct route_scratch *scratch, bool has_regex,
                                      struct route_failure *ret_failure)
{
    ret_failure->predicate = ROUTE_PREDICATE_HEADER;
    for (uint32_t i = 0; i < candidate->headers_count; i++) {
        const struct route_value_predicate *header = &candidate->headers[i];
        if ((header->regex != NULL) != has_regex) {
            continue;
        }
        ret_failure->index = i;
        enum route_answer answer =
            has_regex ? search_header(header, request, scratch) : compare_header(header, request);
        if (answer != ROUTE_YES) {
            return answer;
        }
    }
    ret_failure->predicate = ROUTE_PREDICATE_QUERY_PARAM;
    for (uint32_t i = 0; i < candidate->query_params_count; i++) {
        const struct route_value_predicate *param = &candidate->query_params[i];
        if ((param->regex != NULL) != has_regex) {
            continue;
        }
        ret_failure->index = i;
        enum route_answer answer = check_query_param(param, request, scratch);
        if (answer != ROUTE_YES) {
            return answer;
        }
    }
    return ROUTE_YES;
}

/*
 * Regular expressions come last: they cost the most, and one over its limit must not hide that
 * another predicate refuses the request anyway (the index, too, looks at the others first).
 */
enum route_answer route_candidate_check_rest(const struct route_candidate *candidate,
                                             const struct route_request *request,
                                             struct route_scratch *scratch,
                                             struct route_failure *ret_failure)
{
    bool is_http = candidate->kind == ROUTE_KIND_HTTP_ROUTE;
    if (is_http && candidate->method.data != NULL &&
        !bytes_equal(candidate->method, request->method)) {
        ret_failure->predicate = ROUTE_PREDICATE_METHOD;
        return ROUTE_NO;
    }
    enum route_answer answer = check_values(candidate, request, scratch, false, ret_failure);
    if (answer == ROUTE_YES && candidate->type == ROUTE_MATCH_REGEX) {
        ret_failure->predicate = ROUTE_PREDICATE_PATH;
        answer = is_http ? route_regex_match(candidate->path_regex, request->path, scratch)
                         : check_grpc_method(candidate, request, scratch, ret_failure);
    }
    if (answer == ROUTE_YES) {
        answer = check_values(candidate, request, scratch, true, ret_failure);
    }
    if (answer == ROUTE_YES) {
        ret_failure->predicate = ROUTE_PREDICATE_NONE;
    }
    return answer;
}

enum route_answer route_candidate_check(const struct route_candidate *candidate,
                                        const struct route_request *request,
                                        struct route_scratch *scratch,
                                        struct route_failure *ret_failure)
{
    CHECK(candidate != NULL);
    CHECK(ret_failure != NULL);
    enum route_answer answer = ROUTE_YES; /* TCPRoute and UDPRoute ask nothing */
    *ret_failure = (struct route_failure){ROUTE_PREDICATE_NONE, 0};
    if (candidate->kind == ROUTE_KIND_HTTP_ROUTE) {
        ret_failure->predicate = ROUTE_PREDICATE_PATH;
        answer = has_path(candidate, request) ? ROUTE_YES : ROUTE_NO;
    } else if (candidate->kind == ROUTE_KIND_GRPC_ROUTE) {
        ret_failure->predicate = ROUTE_PREDICATE_PROTOCOL;
        answer = route_request_is_grpc(request) ? ROUTE_YES : ROUTE_NO;
        if (answer == ROUTE_YES && candidate->type != ROUTE_MATCH_REGEX) {
            answer = check_grpc_method(candidate, request, scratch, ret_failure);
        }
    } else if (candidate->kind == ROUTE_KIND_TLS_ROUTE) {
        ret_failure->predicate = ROUTE_PREDICATE_SNI;
        answer = check_sni(candidate, request);
    }
    if (answer != ROUTE_YES) {
        return answer;
    }
    return route_candidate_check_rest(candidate, request, scratch, ret_failure);
}

/*
 * Compiling matches: each becomes a candidate with its predicates. A rule with a match that cannot
 * be expressed is not usable, and never gets here.
 */
#include "base/check.h"
#include "routes/candidate.h"
#include "routes/lookup.h"
#include "routes/path.h"
#include "routes/table_compiler.h"

/* ---- Candidates ---- */

static bool is_repeated(const struct route_value_match *values, uint32_t index,
                        enum route_fact_kind kind)
{
    for (uint32_t i = 0; i < index; i++) {
        if (kind == ROUTE_FACT_HEADER ? bytes_equal_nocase(values[i].name, values[index].name)
                                      : bytes_equal(values[i].name, values[index].name)) {
            return true;
        }
    }
    return false;
}

/* Headers or query parameters; of entries with one name only the first counts, also for precedence.
 */
static struct error make_values(struct route_compiler *compiler, enum route_fact_kind kind,
                                const struct route_value_match *values, uint32_t count,
                                const struct route_value_predicate **ret_values,
                                uint16_t *ret_count)
{
    struct route_value_predicate *out = arena_alloc_zero(compiler->arena, count, sizeof(*out));
    if (out == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint16_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (is_repeated(values, i, kind)) {
            continue;
        }
        struct bytes name = values[i].name;
        if (kind == ROUTE_FACT_HEADER) {
            char *lower = arena_copy_string(compiler->arena, name);
            if (lower == NULL) {
                return error_make(ERROR_NO_MEMORY, 0);
            }
            for (size_t at = 0; at < name.size; at++) {
                lower[at] = (char)byte_lower((uint8_t)lower[at]);
            }
            name = bytes_make(lower, name.size);
        }
        out[kept].name = name;
        out[kept].value = values[i].value;
        if (values[i].type == ROUTE_MATCH_REGEX) {
            TRY(route_compiler_regex(compiler, values[i].value, &out[kept].regex));
        }
        kept++;
    }
    *ret_values = out;
    *ret_count = kept;
    return OK;
}

static struct error make_http_candidate(struct route_compiler *compiler,
                                        const struct route_http_match *match,
                                        struct route_candidate *candidate)
{
    candidate->position = &match->position;
    candidate->type = match->path.type;
    candidate->path = match->path.value;
    candidate->method = match->method;
    if (match->path.type == ROUTE_MATCH_PREFIX) {
        candidate->path = route_path_prefix(match->path.value);
    } else if (match->path.type == ROUTE_MATCH_REGEX) {
        TRY(route_compiler_regex(compiler, match->path.value, &candidate->path_regex));
    }
    TRY(make_values(compiler, ROUTE_FACT_HEADER, match->headers, match->headers_count,
                    &candidate->headers, &candidate->headers_count));
    return make_values(compiler, ROUTE_FACT_QUERY_PARAM, match->query_params,
                       match->query_params_count, &candidate->query_params,
                       &candidate->query_params_count);
}

static struct error make_grpc_regexes(struct route_compiler *compiler,
                                      struct route_candidate *candidate)
{
    if (candidate->service.data != NULL) {
        TRY(route_compiler_regex(compiler, candidate->service, &candidate->path_regex));
    }
    if (candidate->method.data != NULL) {
        TRY(route_compiler_regex(compiler, candidate->method, &candidate->method_regex));
    }
    return OK;
}

/* What the index looks up: the path of the call, or its part of the service. */
static struct error make_grpc_path(struct route_compiler *compiler,
                                   struct route_candidate *candidate)
{
    struct bytes service = candidate->service;
    struct bytes method = candidate->method;
    if (service.data == NULL) {
        return OK;
    }
    return route_compiler_text(arena_format(compiler->arena, "/%.*s%s%.*s", (int)service.size,
                                            (const char *)service.data,
                                            method.data != NULL ? "/" : "", (int)method.size,
                                            method.data != NULL ? (const char *)method.data : ""),
                               &candidate->path);
}

static struct error make_grpc_candidate(struct route_compiler *compiler,
                                        const struct route_grpc_match *match,
                                        struct route_candidate *candidate)
{
    candidate->position = &match->position;
    if (match->method != NULL) {
        candidate->type = match->method->type;
        candidate->service = match->method->service;
        candidate->method = match->method->method;
        TRY(candidate->type == ROUTE_MATCH_REGEX ? make_grpc_regexes(compiler, candidate)
                                                 : make_grpc_path(compiler, candidate));
    }
    return make_values(compiler, ROUTE_FACT_HEADER, match->headers, match->headers_count,
                       &candidate->headers, &candidate->headers_count);
}

static void make_tls_candidate(struct bytes hostname, struct route_candidate *candidate)
{
    bool is_wildcard = bytes_starts_with(hostname, BYTES("*."));
    candidate->type = is_wildcard ? ROUTE_MATCH_PREFIX : ROUTE_MATCH_EXACT;
    candidate->path = is_wildcard ? bytes_skip(hostname, 1) : hostname;
}

/* How many candidates a rule becomes. */
uint32_t route_compiler_count_matches(const struct route *route, const struct route_rule *rule)
{
    uint32_t count = 1;
    if (route->object.kind == ROUTE_KIND_HTTP_ROUTE) {
        count = rule->http_matches_count;
    } else if (route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        count = rule->grpc_matches_count;
    } else if (route->object.kind == ROUTE_KIND_TLS_ROUTE) {
        count = route->hostnames_count;
    }
    return count == 0 ? 1 : count;
}

struct error route_compiler_candidate(struct route_compiler *compiler,
                                      const struct route_table_rule *rule, uint32_t match,
                                      struct route_candidate *candidate)
{
    const struct route_rule *source = rule->source;
    candidate->kind = rule->route->object.kind;
    candidate->rule = rule;
    candidate->match_index = match;
    candidate->position = &source->position;
    if (candidate->kind == ROUTE_KIND_HTTP_ROUTE && match < source->http_matches_count) {
        return make_http_candidate(compiler, &source->http_matches[match], candidate);
    }
    if (candidate->kind == ROUTE_KIND_GRPC_ROUTE && match < source->grpc_matches_count) {
        return make_grpc_candidate(compiler, &source->grpc_matches[match], candidate);
    }
    if (candidate->kind == ROUTE_KIND_TLS_ROUTE && match < rule->route->hostnames_count) {
        make_tls_candidate(rule->route->hostnames[match], candidate);
    } else if (candidate->kind == ROUTE_KIND_HTTP_ROUTE) {
        candidate->type = ROUTE_MATCH_PREFIX; /* no match at all is PathPrefix "/" */
        candidate->path = BYTES("");
    }
    return OK;
}

/* The body predicates of a rule, which are one more condition of each of its matches. */
struct error route_compiler_body_matches(struct route_compiler *compiler,
                                         struct route_table_rule *rule,
                                         struct route_candidate *candidate)
{
    const struct route_rule *source = rule->source;
    uint32_t count = 0;
    for (uint32_t i = 0; i < source->filters_count; i++) {
        count += route_filter_is_body_match(&source->filters[i]) ? 1 : 0;
    }
    if (count == 0) {
        return OK;
    }
    const struct route_body_match **matches =
        arena_alloc_zero(compiler->arena, count, sizeof(const struct route_body_match *));
    if (matches == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t found = 0;
    for (uint32_t i = 0; i < source->filters_count; i++) {
        if (!route_filter_is_body_match(&source->filters[i])) {
            continue;
        }
        const struct route_body_match *match = compiler->resolver->body_match(
            compiler->resolver->argument, rule->route->object.namespace,
            source->filters[i].extension_ref->name);
        if (match == NULL) {
            rule->fault = ROUTE_RULE_EXTENSION_NOT_FOUND;
            continue;
        }
        TRY(route_compiler_hold(compiler, &match->object));
        matches[found++] = match;
        if (match->bytes_max > candidate->body_bytes_max) {
            candidate->body_bytes_max = match->bytes_max;
        }
    }
    candidate->body_matches = matches;
    /* A rule that fails anyway need not wait for a body. */
    candidate->body_matches_count = rule->fault == ROUTE_RULE_SOUND ? found : 0;
    return OK;
}

/* ---- Usable rules ---- */

static bool is_regex_sound(enum route_match_type type, struct bytes pattern,
                           struct route_regex_fault *fault)
{
    struct route_regex *regex = NULL;
    if (type != ROUTE_MATCH_REGEX || pattern.data == NULL) {
        return true;
    }
    struct error error = route_regex_create(pattern, fault, &regex);
    route_regex_destroy(regex);
    return !error_is(error) || error.code == ERROR_NO_MEMORY;
}

static bool are_values_sound(const struct route_value_match *values, uint32_t count,
                             struct route_regex_fault *fault,
                             const struct route_position **ret_position)
{
    for (uint32_t i = 0; i < count; i++) {
        *ret_position = &values[i].position;
        if (values[i].type == ROUTE_MATCH_UNSUPPORTED ||
            !is_regex_sound(values[i].type, values[i].value, fault)) {
            return false;
        }
    }
    return true;
}

static bool is_http_match_sound(const struct route_http_match *match,
                                struct route_regex_fault *fault,
                                const struct route_position **ret_position)
{
    *ret_position = &match->path.position;
    return match->path.type != ROUTE_MATCH_UNSUPPORTED &&
           is_regex_sound(match->path.type, match->path.value, fault) &&
           are_values_sound(match->headers, match->headers_count, fault, ret_position) &&
           are_values_sound(match->query_params, match->query_params_count, fault, ret_position);
}

static bool is_grpc_match_sound(const struct route_grpc_match *match,
                                struct route_regex_fault *fault,
                                const struct route_position **ret_position)
{
    *ret_position = &match->position;
    if (match->method != NULL) {
        *ret_position = &match->method->position;
        if (match->method->type == ROUTE_MATCH_UNSUPPORTED ||
            !is_regex_sound(match->method->type, match->method->service, fault) ||
            !is_regex_sound(match->method->type, match->method->method, fault)) {
            return false;
        }
    }
    return are_values_sound(match->headers, match->headers_count, fault, ret_position);
}

bool route_rule_is_usable(const struct route_rule *rule, struct route_regex_fault *fault,
                          const struct route_position **ret_position)
{
    const struct route_position *ignored = NULL;
    const struct route_position **position = ret_position != NULL ? ret_position : &ignored;
    struct route_regex_fault unsupported = {.text = "a value that this version does not know"};
    CHECK(rule != NULL);
    if (fault != NULL) {
        *fault = unsupported;
    }
    *position = &rule->position;
    if (rule->unsupported == ROUTE_UNSUPPORTED_VALUE) {
        return false;
    }
    for (uint32_t i = 0; i < rule->http_matches_count; i++) {
        if (!is_http_match_sound(&rule->http_matches[i], fault, position)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < rule->grpc_matches_count; i++) {
        if (!is_grpc_match_sound(&rule->grpc_matches[i], fault, position)) {
            return false;
        }
    }
    return true;
}

/*
 * One walk over all candidates by rank. What match.c finds through hashes and groups, this finds by
 * asking everyone.
 */
#include "routes/explain.h"

#include "base/check.h"
#include "routes/candidate.h"
#include "routes/lookup.h"
#include "routes/path.h"
#include "routes/precedence.h"

#define SHOWN_BYTES_MAX 200 /* of a value that came with the request */

/* ---- The decision ---- */

static const struct route_candidate *find_first(const struct route_rules *rules,
                                                const struct route_request *request,
                                                struct route_scratch *scratch, bool has_body,
                                                uint32_t rank_min, enum route_answer *ret_answer)
{
    CHECK(rules->candidates != NULL);
    for (uint32_t rank = rank_min; rank < rules->candidates_count; rank++) {
        const struct route_candidate *candidate = &rules->candidates[rank];
        struct route_failure failure;
        enum route_answer answer = route_candidate_check(candidate, request, scratch, &failure);
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there are ranks, so candidates */
        if (answer == ROUTE_YES && candidate->body_matches_count != 0 && !has_body) {
            continue;
        }
        if (answer != ROUTE_NO) {
            *ret_answer = answer;
            return candidate;
        }
    }
    return NULL;
}

static void fill(const struct route_candidate *candidate, enum route_answer answer,
                 bool is_preflight, struct route_decision *ret_decision)
{
    if (candidate == NULL) {
        *ret_decision = (struct route_decision){.outcome = ROUTE_OUTCOME_NONE};
        return;
    }
    bool has_prefix =
        candidate->kind == ROUTE_KIND_HTTP_ROUTE && candidate->type == ROUTE_MATCH_PREFIX;
    *ret_decision = (struct route_decision){
        .outcome = answer == ROUTE_OVER_LIMIT           ? ROUTE_OUTCOME_OVER_LIMIT
                   : candidate->body_matches_count != 0 ? ROUTE_OUTCOME_NEEDS_BODY
                                                        : ROUTE_OUTCOME_RULE,
        .rule = candidate->rule,
        .candidate = candidate,
        .position = candidate->position,
        .match_index = candidate->match_index,
        .prefix_bytes = has_prefix ? candidate->path.size : 0,
        .is_preflight = is_preflight,
    };
}

/* The request as a preflight asks for it; false when it is none, or its kind knows none. */
static bool as_asked(const struct route_rules *rules, const struct route_request *request,
                     struct route_request *ret_asked)
{
    if (rules->kind != ROUTE_KIND_HTTP_ROUTE || !route_is_preflight(request)) {
        return false;
    }
    *ret_asked = *request;
    ret_asked->method = route_request_find(request, BYTES("access-control-request-method"))->value;
    return true;
}

static void decide(const struct route_rules *rules, const struct route_request *request,
                   struct route_scratch *scratch, bool has_body,
                   struct route_decision *ret_decision)
{
    enum route_answer answer = ROUTE_NO;
    struct route_request asked;
    bool is_preflight = false;
    const struct route_candidate *found = find_first(rules, request, scratch, has_body, 0, &answer);
    if (found == NULL && as_asked(rules, request, &asked)) {
        is_preflight = true;
        found = find_first(rules, &asked, scratch, has_body, 0, &answer);
    }
    fill(found, answer, is_preflight, ret_decision);
}

void route_explain_decide(const struct route_rules *rules, const struct route_request *request,
                          struct route_scratch *scratch, struct route_decision *ret_decision)
{
    CHECK(rules != NULL && request != NULL);
    decide(rules, request, scratch, true, ret_decision);
}

/* ---- Words ---- */

static int shown(struct bytes bytes)
{
    return (int)(bytes.size < SHOWN_BYTES_MAX ? bytes.size : SHOWN_BYTES_MAX);
}

#define TEXT(bytes) shown(bytes), (bytes).data == NULL ? "" : (const char *)(bytes).data

static const char *type_word(const struct route_candidate *candidate)
{
    switch (candidate->type) {
    case ROUTE_MATCH_EXACT:
        return "Exact";
    case ROUTE_MATCH_PREFIX:
        return "PathPrefix";
    case ROUTE_MATCH_REGEX:
        return "RegularExpression";
    case ROUTE_MATCH_UNSUPPORTED:
        break;
    }
    return "any";
}

static const char *path_words(const struct route_candidate *candidate, struct arena *arena)
{
    bool is_root = candidate->type == ROUTE_MATCH_PREFIX && candidate->path.size == 0;
    return arena_format(arena, "%s %.*s", type_word(candidate),
                        TEXT((is_root ? BYTES("/") : candidate->path)));
}

static const char *grpc_words(struct bytes value, const struct route_regex *regex,
                              struct arena *arena)
{
    return arena_format(arena, "%s %.*s", regex != NULL ? "RegularExpression" : "Exact",
                        TEXT(value));
}

static const char *value_words(const struct route_value_predicate *value, char separator,
                               struct arena *arena)
{
    return arena_format(arena, "%.*s%c%s%s%.*s", TEXT(value->name), separator,
                        separator == ':' ? " " : "",
                        value->regex != NULL ? "RegularExpression " : "", TEXT(value->value));
}

static const char *joined_header(const struct route_request *request, struct bytes name,
                                 struct arena *arena)
{
    const char *text = NULL;
    if (bytes_equal(name, BYTES("host"))) {
        return arena_format(arena, "host: %.*s", TEXT(request->authority));
    }
    for (size_t i = 0; i < request->fields_count; i++) {
        const struct route_field *field = route_request_field(request, i);
        if (!bytes_equal_nocase(field->name, name)) {
            continue;
        }
        text = text == NULL
                   ? arena_format(arena, "%.*s: %.*s", TEXT(field->name), TEXT(field->value))
                   : arena_format(arena, "%s%.*s%.*s", text, TEXT(route_field_separator(name)),
                                  TEXT(field->value));
        if (text == NULL) {
            return NULL;
        }
    }
    return text == NULL ? "no such header" : text;
}

static const char *query_value(const struct route_request *request, struct bytes name,
                               struct arena *arena)
{
    struct bytes query = request->query;
    struct bytes key;
    struct bytes value;
    while (route_query_next(&query, &key, &value)) {
        if (route_query_equal(key, name)) {
            return arena_format(arena, "%.*s=%.*s", TEXT(key), TEXT(value));
        }
    }
    return "no such parameter";
}

static const char *content_type(const struct route_request *request, struct arena *arena)
{
    const struct route_field *type = route_request_find(request, BYTES("content-type"));
    return type == NULL ? "no content-type"
                        : arena_format(arena, "content-type: %.*s", TEXT(type->value));
}

static void describe_path(const struct route_candidate *candidate,
                          const struct route_request *request, enum route_predicate predicate,
                          struct arena *arena, struct route_rejection *rejection)
{
    rejection->got = arena_format(arena, "%.*s", TEXT(request->path));
    if (predicate == ROUTE_PREDICATE_PATH) {
        rejection->predicate = "path";
        rejection->wanted = path_words(candidate, arena);
    } else if (predicate == ROUTE_PREDICATE_GRPC_SERVICE) {
        rejection->predicate = "service";
        rejection->wanted = candidate->service.data == NULL
                                ? "a path of the form /service/method"
                                : grpc_words(candidate->service, candidate->path_regex, arena);
    } else {
        rejection->predicate = "method";
        rejection->wanted = grpc_words(candidate->method, candidate->method_regex, arena);
    }
}

/* Say which predicate failed, what it wanted and what it got. */
static void describe(const struct route_candidate *candidate, const struct route_request *request,
                     const struct route_failure *failure, struct arena *arena,
                     struct route_rejection *rejection)
{
    switch (failure->predicate) {
    case ROUTE_PREDICATE_PROTOCOL:
        rejection->predicate = "protocol";
        rejection->wanted = "a gRPC call (content-type: application/grpc)";
        rejection->got = content_type(request, arena);
        break;
    case ROUTE_PREDICATE_PATH:
    case ROUTE_PREDICATE_GRPC_SERVICE:
    case ROUTE_PREDICATE_GRPC_METHOD:
        describe_path(candidate, request, failure->predicate, arena, rejection);
        break;
    case ROUTE_PREDICATE_SNI:
        rejection->predicate = "sni";
        rejection->wanted =
            arena_format(arena, "%s%.*s", candidate->type == ROUTE_MATCH_PREFIX ? "*" : "",
                         TEXT(candidate->path));
        rejection->got = request->sni.size == 0 ? "no server name"
                                                : arena_format(arena, "%.*s", TEXT(request->sni));
        break;
    case ROUTE_PREDICATE_METHOD:
        rejection->predicate = "method";
        rejection->wanted = arena_format(arena, "%.*s", TEXT(candidate->method));
        rejection->got = arena_format(arena, "%.*s", TEXT(request->method));
        break;
    case ROUTE_PREDICATE_HEADER:
        rejection->predicate = "header";
        rejection->wanted = value_words(&candidate->headers[failure->index], ':', arena);
        rejection->got = joined_header(request, candidate->headers[failure->index].name, arena);
        break;
    case ROUTE_PREDICATE_QUERY_PARAM:
        rejection->predicate = "queryParam";
        rejection->wanted = value_words(&candidate->query_params[failure->index], '=', arena);
        rejection->got = query_value(request, candidate->query_params[failure->index].name, arena);
        break;
    case ROUTE_PREDICATE_BODY:
    case ROUTE_PREDICATE_NONE:
        rejection->predicate = "body";
        rejection->wanted =
            arena_format(arena, "BodyMatch %.*s", TEXT(candidate->body_matches[0]->object.name));
        rejection->got = "undecided: no body is looked at here";
        break;
    }
}

/* The step of precedence that put `winner` before `loser`, in words of both. */
static void describe_loss(const struct route_candidate *winner, const struct route_candidate *loser,
                          struct arena *arena, struct route_rejection *rejection)
{
    enum route_precedence step = ROUTE_PRECEDENCE_SAME;
    (void)route_precedence_compare(winner, loser, &step);
    rejection->predicate = "precedence";
    switch (step) {
    case ROUTE_PRECEDENCE_PATH_TYPE:
    case ROUTE_PRECEDENCE_PATH_LENGTH:
        rejection->wanted = arena_format(arena, "a more specific %s than %s",
                                         winner->kind == ROUTE_KIND_TLS_ROUTE ? "name" : "path",
                                         path_words(winner, arena));
        rejection->got = path_words(loser, arena);
        break;
    case ROUTE_PRECEDENCE_METHOD:
        rejection->wanted = "a method, as the chosen match has";
        rejection->got = "any method";
        break;
    case ROUTE_PRECEDENCE_SERVICE_LENGTH:
    case ROUTE_PRECEDENCE_METHOD_LENGTH:
        rejection->wanted = "a longer service and method than the chosen match";
        rejection->got =
            arena_format(arena, "%.*s/%.*s", TEXT(loser->service), TEXT(loser->method));
        break;
    case ROUTE_PRECEDENCE_HEADERS:
        rejection->wanted = arena_format(arena, "%u header matches", winner->headers_count);
        rejection->got = arena_format(arena, "%u", loser->headers_count);
        break;
    case ROUTE_PRECEDENCE_QUERY_PARAMS:
        rejection->wanted = arena_format(arena, "%u query matches", winner->query_params_count);
        rejection->got = arena_format(arena, "%u", loser->query_params_count);
        break;
    case ROUTE_PRECEDENCE_BODY:
        rejection->wanted = "a body match, as the chosen rule has";
        rejection->got = "none";
        break;
    case ROUTE_PRECEDENCE_AGE:
        rejection->wanted = arena_format(arena, "a route older than %.*s, or before it by name",
                                         TEXT(winner->rule->route_name));
        rejection->got = arena_format(arena, "%.*s", TEXT(loser->rule->route_name));
        break;
    case ROUTE_PRECEDENCE_RULE:
    case ROUTE_PRECEDENCE_MATCH:
    case ROUTE_PRECEDENCE_SAME:
    case ROUTE_PRECEDENCE_COUNT:
        rejection->wanted = "an earlier place in the route";
        rejection->got =
            arena_format(arena, "rule %u, match %u", loser->rule->source_index, loser->match_index);
        break;
    }
}

/* ---- The explanation ---- */

/* The matcher leaves the expression of a path for late; people look at the path first. */
static bool check_in_order(const struct route_candidate *candidate,
                           const struct route_request *request, struct route_scratch *scratch,
                           struct route_failure *ret_failure)
{
    bool holds = route_candidate_check(candidate, request, scratch, ret_failure) != ROUTE_NO;
    if (!holds && candidate->kind == ROUTE_KIND_HTTP_ROUTE &&
        candidate->type == ROUTE_MATCH_REGEX && ret_failure->predicate != ROUTE_PREDICATE_PATH &&
        route_regex_match(candidate->path_regex, request->path, scratch) == ROUTE_NO) {
        ret_failure->predicate = ROUTE_PREDICATE_PATH;
    }
    return holds;
}

struct error route_explain(const struct route_rules *rules, const struct route_request *request,
                           struct route_scratch *scratch, struct arena *arena,
                           struct route_explanation *ret_explanation)
{
    CHECK(rules != NULL && request != NULL);
    CHECK(scratch != NULL && arena != NULL);
    struct route_explanation explanation = {0};
    struct route_request asked = *request;
    decide(rules, request, scratch, false, &explanation.decision);
    if (explanation.decision.is_preflight) {
        (void)as_asked(rules, request, &asked);
    }
    struct route_rejection *rejections =
        arena_alloc_zero(arena, rules->candidates_count, sizeof(*rejections));
    if (rejections == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t rank = 0; rank < rules->candidates_count; rank++) {
        const struct route_candidate *candidate = &rules->candidates[rank];
        const struct route_candidate *chosen = explanation.decision.candidate;
        if (candidate == chosen) {
            continue;
        }
        struct route_rejection *rejection = &rejections[explanation.rejections_count++];
        struct route_failure failure;
        rejection->rule = candidate->rule;
        rejection->match_index = candidate->match_index;
        rejection->position = candidate->position;
        bool holds = check_in_order(candidate, &asked, scratch, &failure);
        if (holds && chosen != NULL && chosen->rank < rank) {
            describe_loss(chosen, candidate, arena, rejection);
        } else {
            describe(candidate, &asked, &failure, arena, rejection);
        }
        if (rejection->wanted == NULL || rejection->got == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
    }
    explanation.rejections = rejections;
    *ret_explanation = explanation;
    return OK;
}

/* Append to a list of words. */
static const char *join(const char *text, const char *label, const char *words, struct arena *arena)
{
    if (text == NULL || words == NULL) {
        return NULL;
    }
    return arena_format(arena, "%s%s%s%s", text, text[0] == '\0' ? "" : ", ", label, words);
}

const char *route_explain_match(const struct route_candidate *candidate, struct arena *arena)
{
    CHECK(candidate != NULL);
    const char *text = "";
    if (candidate->kind == ROUTE_KIND_HTTP_ROUTE) {
        text = join(text, "path ", path_words(candidate, arena), arena);
    } else if (candidate->kind == ROUTE_KIND_TLS_ROUTE && candidate->path.data != NULL) {
        text =
            arena_format(arena, "server name %s%.*s",
                         candidate->type == ROUTE_MATCH_PREFIX ? "*" : "", TEXT(candidate->path));
    }
    if (candidate->service.data != NULL) {
        text = join(text, "service ", grpc_words(candidate->service, candidate->path_regex, arena),
                    arena);
    }
    if (candidate->method.data != NULL) {
        text =
            candidate->kind == ROUTE_KIND_HTTP_ROUTE
                ? join(text, "method ", arena_format(arena, "%.*s", TEXT(candidate->method)), arena)
                : join(text, "method ",
                       grpc_words(candidate->method, candidate->method_regex, arena), arena);
    }
    for (uint32_t i = 0; i < candidate->headers_count; i++) {
        text = join(text, "header ", value_words(&candidate->headers[i], ':', arena), arena);
    }
    for (uint32_t i = 0; i < candidate->query_params_count; i++) {
        text = join(text, "query ", value_words(&candidate->query_params[i], '=', arena), arena);
    }
    return text != NULL && text[0] == '\0' ? "everything" : text;
}

uint32_t route_rules_matches_count(const struct route_rules *rules)
{
    return rules->candidates_count;
}

void route_rules_match_at(const struct route_rules *rules, uint32_t rank, struct arena *arena,
                          struct route_listing *ret_listing)
{
    CHECK(rank < rules->candidates_count);
    const struct route_candidate *candidate = &rules->candidates[rank];
    *ret_listing = (struct route_listing){.rule = candidate->rule,
                                          .match_index = candidate->match_index,
                                          .position = candidate->position,
                                          .when = route_explain_match(candidate, arena)};
}

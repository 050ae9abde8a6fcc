/*
 * From a destination as people write it to the decision and all that follows from it: shares,
 * endpoints, what is forwarded, what is answered. The decision is routes/explain.c's; what a
 * failure is answered with is cause.h's.
 */
#include "cli/explained.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "routes/rewrite.h"
#include "routes/text.h"

static const struct error no_memory = {ERROR_NO_MEMORY, 0};

static struct error say(char *message, size_t size, enum error_code code, const char *text,
                        struct bytes what)
{
    (void)snprintf(message, size, "%s: %.*s", text, (int)(what.size < 200 ? what.size : 200),
                   what.data == NULL ? "" : (const char *)what.data);
    return error_make(code, 0);
}

/* ---- The destination ---- */

/* Split "NAME:PORT"; an IPv6 address is in brackets. */
static struct error split_port(struct bytes to, struct bytes *ret_name, uint16_t *ret_port)
{
    size_t at = to.size;
    while (at > 0 && to.data[at - 1] != ':') {
        at--;
    }
    if (at <= 1) {
        return error_make(ERROR_SYNTAX, 0);
    }
    uint64_t port = 0;
    TRY(bytes_parse_decimal(bytes_skip(to, at), UINT16_MAX, &port));
    struct bytes name = bytes_first(to, at - 1);
    if (name.data[0] == '[' && name.data[name.size - 1] == ']') {
        name = bytes_make(name.data + 1, name.size - 2);
    }
    *ret_name = name;
    *ret_port = (uint16_t)port;
    return OK;
}

static void take_port(struct explained *explained, const struct route_port *port,
                      struct arena *arena)
{
    const struct route_object *object = &port->service->object->object;
    char *name =
        arena_format(arena, "%.*s.%.*s", (int)object->name.size, (const char *)object->name.data,
                     (int)object->namespace.size, (const char *)object->namespace.data);
    explained->service = bytes_from_string(name);
    explained->port = port->source->port;
    explained->rules = port->rules;
    explained->is_udp = port->source->transport == ROUTE_TRANSPORT_UDP;
}

/* TCP, unless UDP was asked for or is all there is. */
static const struct route_port *find_port(const struct route_service *service, uint16_t number,
                                          bool is_udp)
{
    const struct route_port *port =
        is_udp ? NULL : route_service_port_find(service, number, ROUTE_TRANSPORT_TCP);
    return port != NULL ? port : route_service_port_find(service, number, ROUTE_TRANSPORT_UDP);
}

/* An address: a ClusterIP, an endpoint (which has no routes), or nothing that is known. */
static const struct route_port *find_address(const struct route_config *config,
                                             const struct route_ip *ip, uint16_t number,
                                             struct explained *explained)
{
    const struct route_services *services = route_config_services(config);
    struct route_endpoint_owner owner = {0};
    const struct route_port *port =
        explained->is_udp ? NULL
                          : route_services_find_address(services, ip, number, ROUTE_TRANSPORT_TCP);
    if (port == NULL) {
        port = route_services_find_address(services, ip, number, ROUTE_TRANSPORT_UDP);
    }
    if (port != NULL) {
        return port;
    }
    explained->is_direct = true;
    return route_services_find_endpoint(services, ip, number, &owner, 1) > 0 ? owner.port : NULL;
}

/* There is no such Service; the nearest name of the namespace, or the same name elsewhere. */
static struct error say_no_service(const struct route_config *config, struct bytes name,
                                   struct bytes namespace, char *message, size_t size)
{
    const struct route_services *services = route_config_services(config);
    const struct route_object *nearest = NULL;
    uint32_t best = ROUTE_TEXT_FAR;
    for (uint32_t i = 0; i < route_services_count(services); i++) {
        const struct route_object *object = &route_services_at(services, i)->object->object;
        bool is_here = bytes_equal(object->namespace, namespace);
        if ((is_here && route_text_is_nearer(name, object->name, &best)) ||
            (nearest == NULL && bytes_equal(object->name, name))) {
            nearest = object;
        }
    }
    (void)snprintf(message, size, "no such Service: %.*s.%.*s", (int)name.size,
                   (const char *)name.data, (int)namespace.size, (const char *)namespace.data);
    size_t used = strlen(message);
    if (nearest != NULL) {
        (void)snprintf(message + used, size - used, "; did you mean %s.%s?",
                       (const char *)nearest->name.data, (const char *)nearest->namespace.data);
    }
    return error_make(ERROR_NOT_FOUND, 0);
}

/* The Service has no such port; those that it has. */
static struct error say_no_port(const struct route_service *service, struct bytes to, char *message,
                                size_t size)
{
    (void)snprintf(message, size, "the Service has no such port: %.*s; it has", (int)to.size,
                   (const char *)to.data);
    for (uint32_t i = 0; i < service->ports_count; i++) {
        const struct route_service_port *port = service->ports[i].source;
        size_t used = strlen(message);
        (void)snprintf(message + used, size - used, "%s %u%s", i == 0 ? "" : ",", port->port,
                       port->transport == ROUTE_TRANSPORT_UDP ? "/UDP" : "");
    }
    return error_make(ERROR_NOT_FOUND, 0);
}

static struct error find_destination(const struct route_config *config, struct bytes to,
                                     struct arena *arena, struct explained *explained,
                                     const struct route_port **ret_port, char *message, size_t size)
{
    struct bytes name = {0};
    struct route_ip ip;
    uint16_t number = 0;
    explained->destination = to;
    if (error_is(split_port(to, &name, &number)) || number == 0) {
        return say(message, size, ERROR_USAGE, "not of the form SERVICE.NAMESPACE:PORT", to);
    }
    if (!error_is(route_ip_parse(name, &ip))) {
        *ret_port = find_address(config, &ip, number, explained);
        explained->port = number;
        if (*ret_port != NULL) {
            take_port(explained, *ret_port, arena);
            explained->rules = explained->is_direct ? NULL : explained->rules;
        }
        return OK;
    }
    struct bytes rest = name;
    struct bytes service_name = bytes_split(&rest, '.');
    struct bytes namespace = bytes_split(&rest, '.'); /* a longer DNS name is taken too */
    if (namespace.size == 0) {
        return say(message, size, ERROR_USAGE, "not of the form SERVICE.NAMESPACE:PORT", to);
    }
    const struct route_service *service =
        route_services_find(route_config_services(config), namespace, service_name);
    if (service == NULL) {
        return say_no_service(config, service_name, namespace, message, size);
    }
    const struct route_port *port = find_port(service, number, explained->is_udp);
    if (port == NULL) {
        return say_no_port(service, to, message, size);
    }
    take_port(explained, port, arena);
    *ret_port = port;
    return OK;
}

/* ---- Routes that are not in force ---- */

/* "Service shop/web", and behind it ":80", "#http" or nothing. `*ret_port` is 0 without a port. */
static bool names_service(struct bytes parent, const struct route_object *service,
                          uint16_t *ret_port)
{
    const struct bytes parts[] = {BYTES("Service "), service->namespace, BYTES("/"), service->name};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (!bytes_starts_with(parent, parts[i])) {
            return false;
        }
        parent = bytes_skip(parent, parts[i].size);
    }
    uint64_t port = 0;
    if (parent.size > 0 && parent.data[0] == ':') {
        struct bytes digits = bytes_skip(parent, 1);
        error_ignore(bytes_parse_decimal(bytes_first(digits, bytes_find(digits, '#')), UINT16_MAX,
                                         &port)); /* 0 then: another name */
    }
    *ret_port = (uint16_t)port;
    return parent.size == 0 || parent.data[0] == '#' || port != 0;
}

/* Does the condition say that something is not as its route's author may think? */
static bool is_note(const struct route_condition *condition, const struct route_port *port)
{
    uint16_t number = 0;
    if (!names_service(condition->parent, &port->service->object->object, &number)) {
        return false;
    }
    bool is_accepted = strcmp(condition->type, "Accepted") == 0;
    if (number != 0 && number != port->source->port && (!is_accepted || condition->status)) {
        return false; /* of another port that is there */
    }
    if (is_accepted) {
        return !condition->status || strstr(condition->message, "not here") != NULL;
    }
    return condition->status && strcmp(condition->type, "ResolvedRefs") != 0;
}

static struct error find_notes(const struct route_config *config, const struct route_port *port,
                               struct arena *arena, struct explained *explained)
{
    uint32_t places = 0;
    uint32_t most = 0;
    uint32_t count = 0;
    (void)route_config_objects(config, &places);
    for (uint32_t place = 0; place < places; place++) {
        (void)route_config_conditions(config, place, &count);
        most += count;
    }
    const struct route_condition **notes =
        arena_alloc_zero(arena, most, sizeof(const struct route_condition *));
    if (notes == NULL) {
        return no_memory;
    }
    for (uint32_t place = 0; place < places; place++) {
        const struct route_condition *conditions = route_config_conditions(config, place, &count);
        for (uint32_t i = 0; i < count; i++) {
            if (is_note(&conditions[i], port)) {
                notes[explained->notes_count++] = &conditions[i];
            }
        }
    }
    explained->notes = notes;
    return OK;
}

/* ---- The request ---- */

static const struct route_field *find_field(const struct explanation_request *request,
                                            struct bytes name)
{
    for (uint32_t i = 0; i < request->fields_count; i++) {
        if (bytes_equal_nocase(request->fields[i].name, name)) {
            return &request->fields[i];
        }
    }
    return NULL;
}

/* Fill in what people leave out: GET, the host that was dialled, and that a GRPCRoute's client
 * speaks gRPC. */
static struct error complete_request(const struct explanation_request *from, struct arena *arena,
                                     struct explained *explained)
{
    struct route_request *request = &explained->request;
    const struct route_field *host = find_field(from, BYTES("host"));
    struct route_field *fields = arena_alloc_zero(arena, from->fields_count + 1, sizeof(*fields));
    if (fields == NULL) {
        return no_memory;
    }
    for (uint32_t i = 0; i < from->fields_count; i++) {
        fields[i] = from->fields[i];
    }
    *request = (struct route_request){
        .method = from->method.size == 0 ? BYTES("GET") : from->method,
        .path = explained->target.path,
        .query = explained->target.query,
        .authority = host != NULL ? host->value : explained->destination,
        .sni = from->sni,
        .fields = fields,
        .fields_count = from->fields_count,
    };
    if (explained->rules != NULL && route_rules_kind(explained->rules) == ROUTE_KIND_GRPC_ROUTE &&
        from->method.size == 0 && find_field(from, BYTES("content-type")) == NULL) {
        explained->is_assumed_grpc = true;
        request->method = BYTES("POST");
        fields[request->fields_count++] =
            (struct route_field){BYTES("content-type"), BYTES("application/grpc")};
    }
    return OK;
}

/* ---- What follows from a decision ---- */

static bool is_http(const struct explained *explained)
{
    enum route_kind kind = route_rules_kind(explained->rules);
    return kind == ROUTE_KIND_HTTP_ROUTE || kind == ROUTE_KIND_GRPC_ROUTE;
}

static struct explained_answer fail(const struct explained *explained, enum cause cause)
{
    const struct cause_info *info = cause_info(cause);
    struct explained_answer answer = {.is_given = true, .cause = cause, .status = info->status};
    if (explained->rules != NULL && !is_http(explained)) {
        answer.is_reset = true;
        answer.status = 0;
    } else if (route_request_is_grpc(&explained->request)) {
        answer.status = 200;
        answer.has_grpc_status = true;
        answer.grpc_status = info->grpc_status;
    }
    return answer;
}

static struct error redirect(const struct explained *explained,
                             const struct route_redirect *redirect, struct arena *arena,
                             struct explained_answer *ret_answer)
{
    struct route_redirect_from from = {
        .scheme = BYTES("http"),
        .authority = explained->request.authority,
        .port = explained->port,
        .path = explained->target.path,
        .query = explained->target.query,
        .has_query = explained->target.has_query,
        .prefix_bytes = explained->why.decision.prefix_bytes,
    };
    struct explained_answer answer = {
        .is_given = true, .cause = CAUSE_NONE, .status = redirect->status_code};
    TRY(route_redirect_location(redirect, &from, arena, &answer.location));
    *ret_answer = answer;
    return OK;
}

/* How many endpoints stand behind a backend; false when there is not even a ClusterIP. */
static bool count_endpoints(const struct route_config *config,
                            const struct route_table_backend *backend, bool is_udp,
                            uint32_t *ret_count)
{
    const struct route_service *service =
        route_services_find(route_config_services(config), backend->namespace, backend->name);
    const struct route_port *port =
        service == NULL ? NULL : find_port(service, backend->port, is_udp);
    *ret_count = 0;
    if (port == NULL) {
        return false;
    }
    *ret_count = port->endpoints_count;
    if (!service->has_slices && service->cluster_ips_count > 0) {
        *ret_count = 1;
    }
    return *ret_count > 0 || service->cluster_ips_count > 0;
}

struct rewrites {
    struct bytes hostname;
    const struct route_path_modifier *path;
};

/* The last of each counts: the rule's filters are looked at first, then the backendRef's. */
static void collect_rewrites(const struct route_table_filter *filters, uint32_t count,
                             struct rewrites *rewrites)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_rewrite *rewrite = filters[i].source->rewrite;
        if (filters[i].type != ROUTE_FILTER_URL_REWRITE) {
            continue;
        }
        if (rewrite->hostname.data != NULL) {
            rewrites->hostname = rewrite->hostname;
        }
        if (rewrite->path != NULL) {
            rewrites->path = rewrite->path;
        }
    }
}

static struct error forward(const struct explained *explained, struct arena *arena,
                            struct explained_backend *backend)
{
    struct rewrites rewrites = {0};
    const struct route_table_rule *rule = explained->why.decision.rule;
    struct bytes path = explained->target.path;
    struct bytes query = explained->target.query;
    if (rule != NULL) {
        collect_rewrites(rule->filters, rule->filters_count, &rewrites);
    }
    collect_rewrites(backend->backend->filters, backend->backend->filters_count, &rewrites);
    if (rewrites.path != NULL) {
        TRY(route_rewrite_path(rewrites.path, path, explained->why.decision.prefix_bytes, arena,
                               &path));
    }
    char *target = arena_format(arena, "%.*s%s%.*s", (int)path.size, (const char *)path.data,
                                explained->target.has_query ? "?" : "", (int)query.size,
                                query.data == NULL ? "" : (const char *)query.data);
    if (target == NULL) {
        return no_memory;
    }
    backend->host =
        rewrites.hostname.data != NULL ? rewrites.hostname : explained->request.authority;
    backend->target = bytes_from_string(target);
    return OK;
}

static struct error explain_backend(const struct route_config *config,
                                    const struct explained *explained, struct arena *arena,
                                    struct explained_backend *backend)
{
    const struct route_filter *redirecting = backend->backend->redirect;
    bool has_any =
        count_endpoints(config, backend->backend, explained->is_udp, &backend->endpoints);
    TRY(forward(explained, arena, backend));
    if (backend->backend->fault != ROUTE_BACKEND_VALID) {
        backend->answer = fail(explained, CAUSE_INVALID_BACKEND);
    } else if (redirecting != NULL) {
        return redirect(explained, redirecting->redirect, arena, &backend->answer);
    } else if (!has_any) {
        backend->answer = fail(explained, CAUSE_NO_ENDPOINTS);
    }
    return OK;
}

static struct error explain_backends(const struct route_config *config, struct arena *arena,
                                     struct explained *explained)
{
    const struct route_table_rule *rule = explained->why.decision.rule;
    struct explained_backend *backends =
        arena_alloc_zero(arena, rule->backends_count, sizeof(*backends));
    if (backends == NULL) {
        return no_memory;
    }
    bool is_same_for_all = true;
    const struct explained_backend *first = NULL;
    for (uint32_t i = 0; i < rule->backends_count; i++) {
        backends[i].backend = &rule->backends[i];
        backends[i].share = rule->weights_sum == 0
                                ? 0
                                : (double)rule->backends[i].weight / (double)rule->weights_sum;
        TRY(explain_backend(config, explained, arena, &backends[i]));
        if (rule->backends[i].weight == 0) {
            continue;
        }
        first = first == NULL ? &backends[i] : first;
        is_same_for_all &= backends[i].answer.is_given &&
                           backends[i].answer.status == first->answer.status &&
                           backends[i].answer.cause == first->answer.cause &&
                           bytes_equal(backends[i].answer.location, first->answer.location);
    }
    explained->backends = backends;
    explained->backends_count = rule->backends_count;
    if (first == NULL) {
        explained->answer = fail(explained, CAUSE_NO_BACKEND);
    } else if (is_same_for_all) {
        explained->answer = first->answer;
    }
    return OK;
}

/* What happens to a request that has its rule. */
static struct error explain_rule(const struct route_config *config, struct arena *arena,
                                 struct explained *explained)
{
    const struct route_table_rule *rule = explained->why.decision.rule;
    if (rule->fault != ROUTE_RULE_SOUND) {
        explained->answer = fail(explained, CAUSE_INVALID_BACKEND);
        return OK;
    }
    if (rule->redirect != NULL) {
        return redirect(explained, rule->redirect->redirect, arena, &explained->answer);
    }
    TRY(explain_backends(config, arena, explained));
    if (rule->cors != NULL && route_is_preflight(&explained->request)) {
        explained->answer = (struct explained_answer){.is_given = true, .status = 204};
    }
    return OK;
}

/* Without routes the destination itself is the backend, and the target goes on byte for byte. */
static struct error explain_without_routes(const struct route_config *config,
                                           const struct route_port *port, struct arena *arena,
                                           struct explained *explained)
{
    struct route_table_backend *backend = arena_alloc_zero(arena, 1, sizeof(*backend));
    struct explained_backend *row = arena_alloc_zero(arena, 1, sizeof(*row));
    if (backend == NULL || row == NULL) {
        return no_memory;
    }
    backend->reference = explained->destination;
    backend->weight = 1;
    backend->port = explained->port;
    row->backend = backend;
    row->share = 1;
    row->endpoints = 1;
    if (port != NULL && !explained->is_direct) {
        char *reference = arena_format(arena, "%.*s:%u", (int)explained->service.size,
                                       (const char *)explained->service.data, explained->port);
        if (reference == NULL) {
            return no_memory;
        }
        backend->reference = bytes_from_string(reference);
        backend->namespace = port->service->object->object.namespace;
        backend->name = port->service->object->object.name;
        if (!count_endpoints(config, backend, explained->is_udp, &row->endpoints)) {
            row->answer = fail(explained, CAUSE_NO_ENDPOINTS);
        }
    }
    explained->answer = row->answer;
    explained->backends = row;
    explained->backends_count = 1;
    return forward(explained, arena, row);
}

static struct error explain_with_routes(const struct route_config *config, struct arena *arena,
                                        struct explained *explained)
{
    struct route_scratch *scratch = NULL;
    TRY(route_scratch_create(&scratch));
    struct error error =
        route_explain(explained->rules, &explained->request, scratch, arena, &explained->why);
    route_scratch_destroy(scratch);
    TRY(error);
    switch (explained->why.decision.outcome) {
    case ROUTE_OUTCOME_NONE:
        explained->answer = fail(explained, CAUSE_NO_ROUTE);
        return OK;
    case ROUTE_OUTCOME_OVER_LIMIT:
        explained->answer = fail(explained, CAUSE_LIMIT_REGEX);
        return OK;
    case ROUTE_OUTCOME_RULE:
    case ROUTE_OUTCOME_NEEDS_BODY:
        break;
    }
    return explain_rule(config, arena, explained);
}

/* Split and normalise the target; without routes nobody looks into it, and it goes on as it is. */
static struct error take_target(struct bytes target, struct arena *arena,
                                struct explained *explained)
{
    struct bytes given = target.size == 0 ? BYTES("/") : target;
    struct error error = route_target_parse(given, arena, &explained->target);
    if (error.code == ERROR_NO_MEMORY) {
        return error;
    }
    explained->is_malformed = error_is(error) && explained->rules != NULL;
    if (error_is(error) || explained->rules == NULL) {
        explained->target = (struct route_target){.path = given};
    }
    return OK;
}

struct error explained_find(const struct route_config *config,
                            const struct explanation_request *request, struct arena *arena,
                            struct explained *ret_explained, char *message, size_t size)
{
    CHECK(config != NULL && request != NULL);
    CHECK(ret_explained != NULL && message != NULL);
    struct explained explained = {.is_udp = request->is_udp};
    const struct route_port *port = NULL;
    TRY(find_destination(config, request->to, arena, &explained, &port, message, size));
    if (port != NULL && !explained.is_direct) {
        TRY(find_notes(config, port, arena, &explained));
    }
    TRY(take_target(request->target, arena, &explained));
    TRY(complete_request(request, arena, &explained));
    if (explained.is_malformed) {
        explained.answer = fail(&explained, CAUSE_REQUEST_MALFORMED);
    } else if (explained.rules == NULL) {
        TRY(explain_without_routes(config, port, arena, &explained));
    } else {
        TRY(explain_with_routes(config, arena, &explained));
    }
    *ret_explained = explained;
    return OK;
}

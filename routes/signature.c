/* One walk over the source, made twice: to count the words and to write them. */
#include "routes/signature.h"

#include <string.h>

static void add_word(struct route_signature *signature, uint64_t word)
{
    if (signature->words != NULL) {
        signature->words[signature->count] = word;
    }
    signature->count++;
}

static void add_backend(struct route_signature *signature,
                        const struct route_table_resolver *resolver, const struct route *route,
                        const struct route_backend_ref *reference)
{
    bool is_counting = signature->words == NULL; /* then nobody needs the answer */
    add_word(signature, is_counting ? 0 : resolver->backend(resolver->argument, route, reference));
}

static void add_references(struct route_signature *signature,
                           const struct route_table_resolver *resolver, const struct route *route,
                           const struct route_filter *filters, uint32_t filters_count)
{
    for (uint32_t i = 0; i < filters_count; i++) {
        const struct route_filter *filter = &filters[i];
        if (filter->mirror != NULL) {
            add_backend(signature, resolver, route, &filter->mirror->backend);
        }
        if (filter->external_auth != NULL) {
            add_backend(signature, resolver, route, &filter->external_auth->backend);
        }
        if (filter->extension_ref != NULL) {
            add_word(signature,
                     (uint64_t)(uintptr_t)resolver->body_match(
                         resolver->argument, route->object.namespace, filter->extension_ref->name));
        }
    }
}

/* The route itself, and what the other objects say about its references. */
static void add_route(struct route_signature *signature,
                      const struct route_table_resolver *resolver, const struct route *route)
{
    add_word(signature, (uint64_t)(uintptr_t)route);
    for (uint32_t r = 0; r < route->rules_count; r++) {
        const struct route_rule *rule = &route->rules[r];
        add_references(signature, resolver, route, rule->filters, rule->filters_count);
        for (uint32_t b = 0; b < rule->backend_refs_count; b++) {
            const struct route_backend_ref *reference = &rule->backend_refs[b];
            add_backend(signature, resolver, route, reference);
            add_references(signature, resolver, route, reference->filters,
                           reference->filters_count);
        }
    }
}

static void add_source(struct route_signature *signature, const struct route_table_source *source)
{
    for (uint32_t p = 0; p < source->ports_count; p++) {
        const struct route_table_port *port = &source->ports[p];
        add_word(signature, (uint64_t)port->port << 32 | (uint64_t)port->kind << 16 |
                                (uint64_t)port->set << 8 | (uint64_t)port->is_declared_http);
        add_word(signature, port->routes_count);
        for (uint32_t r = 0; r < port->routes_count; r++) {
            add_route(signature, source->resolver, port->routes[r]);
        }
    }
}

FALLIBLE route_signature_make(const struct route_table_source *source, struct arena *arena,
                              struct route_signature *ret_signature)
{
    struct route_signature signature = {0};
    add_source(&signature, source);
    signature.words = arena_alloc_zero(arena, signature.count, sizeof(*signature.words));
    if (signature.words == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    signature.count = 0;
    add_source(&signature, source);
    *ret_signature = signature;
    return OK;
}

bool route_signature_equal(const struct route_signature *a, const struct route_signature *b)
{
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->words, b->words, a->count * sizeof(*a->words)) == 0);
}

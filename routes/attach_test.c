/* Attachment: which routes are in force on which port, and what a status would have said. */
#include "routes/attach.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "routes/scratch_test.h"

#define SERVICES                                                                                   \
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"                      \
    "spec:\n  clusterIP: 10.0.0.1\n  ports:\n"                                                     \
    "  - {name: http, port: 80, targetPort: 8080}\n"                                               \
    "  - {name: alt, port: 81}\n"                                                                  \
    "  - {name: tcp-db, port: 90}\n"                                                               \
    "  - {name: dns, port: 53, protocol: UDP}\n"                                                   \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: headless, namespace: shop}\n"            \
    "spec: {clusterIP: None, ports: [{port: 80}]}\n"                                               \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: outside, namespace: shop}\n"             \
    "spec: {type: ExternalName, externalName: a.b, ports: [{port: 80}]}\n"                         \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: sticky, namespace: shop}\n"              \
    "spec: {clusterIP: 10.0.0.2, sessionAffinity: ClientIP, ports: [{port: 80}]}\n"

/* A route with one rule; `parent` and `backend` are flow mappings. */
#define ROUTE(kind, namespace, name, parent, backend)                                              \
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: " kind "\nmetadata: {name: " name        \
    ", namespace: " namespace "}\nspec:\n  parentRefs: [" parent                                   \
                              "]\n  rules: [{backendRefs: [" backend "]}]\n"

#define WEB "{name: web, namespace: shop, port: 80}"
#define PARENT "{group: '', kind: Service, name: web, namespace: shop"

static void load(struct scratch *scratch, const char *namespace, const char *routes)
{
    scratch_init(scratch);
    scratch->options.namespace = bytes_from_string(namespace);
    scratch_write(scratch, "services.yaml", SERVICES);
    scratch_write(scratch, "routes.yaml", routes);
    scratch_load(scratch);
    cr_assert(!error_is(scratch->error), "%s",
              scratch->diagnostics.count > 0 ? scratch->diagnostics.items[0].message : "");
}

Test(attach, takes_a_group_that_is_absent_empty_or_core)
{
    static const struct {
        const char *parent;
        bool is_attached;
    } cases[] = {
        {"{kind: Service, name: web}", true},
        {"{group: '', kind: Service, name: web}", true},
        {"{group: core, kind: Service, name: web}", true},
        {"{group: gateway.networking.k8s.io, kind: Service, name: web}", false},
        {"{name: web}", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text), ROUTE("HTTPRoute", "shop", "r", "%s", WEB), cases[i].parent);
        struct scratch scratch;
        load(&scratch, "shop", text);
        cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 80)),
                     cases[i].is_attached, "%s", cases[i].parent);
        const struct route_condition *accepted = scratch_condition(&scratch, "r", NULL, "Accepted");
        if (accepted != NULL) {
            cr_assert_eq(accepted->status, cases[i].is_attached);
        } else {
            cr_assert_not(cases[i].is_attached);
        }
        scratch_finish(&scratch);
    }
}

Test(attach, attaches_by_port_by_section_name_by_both_or_to_all)
{
    static const struct {
        const char *rest;
        bool on_80;
        bool on_81;
    } cases[] = {
        {"}", true, true},
        {", port: 80}", true, false},
        {", sectionName: alt}", false, true},
        {", sectionName: alt, port: 81}", false, true},
        {", sectionName: alt, port: 80}", false, false},
        {", port: 8080}", false, false},
        {", port: 80}, " PARENT ", port: 81}", true, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text), ROUTE("HTTPRoute", "shop", "r", PARENT "%s", WEB),
                 cases[i].rest);
        struct scratch scratch;
        load(&scratch, "shop", text);
        cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 80)) > 0,
                     cases[i].on_80, "%s", cases[i].rest);
        cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 81)) > 0,
                     cases[i].on_81, "%s", cases[i].rest);
        const struct route_condition *accepted = scratch_condition(&scratch, "r", NULL, "Accepted");
        cr_assert_eq(accepted->status, cases[i].on_80 || cases[i].on_81, "%s", cases[i].rest);
        if (!accepted->status) {
            cr_assert_str_eq(accepted->reason, "NoMatchingParent");
        }
        scratch_finish(&scratch);
    }
}

Test(attach, leaves_opaque_ports_alone_unless_they_are_named)
{
    struct scratch scratch;
    load(&scratch, "shop", ROUTE("HTTPRoute", "shop", "r", PARENT "}", WEB));
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 90)), 0);
    cr_assert_eq(scratch_port(&scratch, "shop", "web", 90)->protocol, ROUTE_PROTOCOL_TCP);
    cr_assert_eq(scratch_port(&scratch, "shop", "web", 81)->protocol, ROUTE_PROTOCOL_UNDECLARED);
    scratch_finish(&scratch);
    load(&scratch, "shop",
         ROUTE("HTTPRoute", "shop", "r", PARENT ", port: 90}, " PARENT ", port: 81}", WEB));
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 90)), 1);
    cr_assert_eq(scratch_port(&scratch, "shop", "web", 90)->protocol, ROUTE_PROTOCOL_HTTP);
    cr_assert_eq(scratch_port(&scratch, "shop", "web", 81)->protocol, ROUTE_PROTOCOL_HTTP);
    scratch_finish(&scratch);
}

Test(attach, chooses_consumer_routes_for_their_namespace_and_producer_routes_for_the_rest)
{
    static const char routes[] = ROUTE("HTTPRoute", "shop", "producer", PARENT "}", WEB)
        ROUTE("HTTPRoute", "buyer", "consumer", PARENT ", port: 80}", WEB)
            ROUTE("HTTPRoute", "third", "elsewhere", PARENT ", port: 80}", WEB);

    static const struct {
        const char *namespace;
        const char *on_80;
        const char *on_81;
    } cases[] = {
        {"buyer", "buyer/consumer", "shop/producer"}, {"shop", "shop/producer", "shop/producer"},
        {"other", "shop/producer", "shop/producer"},  {"third", "third/elsewhere", "shop/producer"},
        {NULL, "shop/producer", "shop/producer"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scratch scratch;
        load(&scratch, cases[i].namespace, routes);
        const struct route_port *on_80 = scratch_port(&scratch, "shop", "web", 80);
        const struct route_port *on_81 = scratch_port(&scratch, "shop", "web", 81);
        cr_assert_eq(scratch_rules_count(on_80), 1);
        cr_assert_str_eq(scratch_rule_route(on_80, 0), cases[i].on_80);
        cr_assert_str_eq(scratch_rule_route(on_81, 0), cases[i].on_81);
        bool is_consumer = strncmp(cases[i].on_80, "shop/", 5) != 0;
        cr_assert_eq(route_rules_set(on_80->rules),
                     is_consumer ? ROUTE_SET_CONSUMER : ROUTE_SET_PRODUCER);
        scratch_finish(&scratch);
    }
}

Test(attach, lets_one_kind_win_a_port_and_tells_the_others)
{
    static const char routes[] = ROUTE("TCPRoute", "shop", "tcp", PARENT "}", WEB)
        ROUTE("HTTPRoute", "shop", "http", PARENT "}", WEB)
            ROUTE("GRPCRoute", "shop", "grpc", PARENT ", port: 81}", WEB);
    struct scratch scratch;
    load(&scratch, "shop", routes);
    cr_assert_eq(route_rules_kind(scratch_port(&scratch, "shop", "web", 80)->rules),
                 ROUTE_KIND_HTTP_ROUTE);
    cr_assert_eq(route_rules_kind(scratch_port(&scratch, "shop", "web", 81)->rules),
                 ROUTE_KIND_GRPC_ROUTE);
    cr_assert_eq(route_rules_kind(scratch_port(&scratch, "shop", "web", 90)->rules),
                 ROUTE_KIND_TCP_ROUTE);
    cr_assert(scratch_condition(&scratch, "grpc", NULL, "Accepted")->status);
    cr_assert_null(scratch_condition(&scratch, "grpc", NULL, "Conflicted"));
    cr_assert(scratch_condition(&scratch, "http", NULL, "Accepted")->status);
    cr_assert_str_eq(scratch_condition(&scratch, "http", NULL, "Conflicted")->message,
                     "1 of 2 ports follow GRPCRoutes instead");
    cr_assert(scratch_condition(&scratch, "tcp", NULL, "Accepted")->status);
    scratch_finish(&scratch);

    load(&scratch, "shop",
         ROUTE("TLSRoute", "shop", "tls", PARENT ", port: 80}",
               WEB "]}]\n  hostnames: [a.b]\n  # [{[")
             ROUTE("HTTPRoute", "shop", "http", PARENT ", port: 80}", WEB));
    const struct route_condition *accepted = scratch_condition(&scratch, "tls", NULL, "Accepted");
    cr_assert_not(accepted->status);
    cr_assert_str_eq(accepted->reason, "Conflicted");
    scratch_finish(&scratch);
}

Test(attach, merges_routes_of_one_kind)
{
    struct scratch scratch;
    load(&scratch, "shop",
         ROUTE("HTTPRoute", "shop", "b", PARENT "}", WEB)
             ROUTE("HTTPRoute", "shop", "a", PARENT "}", WEB));
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 80)), 2);
    scratch_finish(&scratch);
}

Test(attach, refuses_parents_that_nobody_can_dial)
{
    static const struct {
        const char *kind;
        const char *parent;
        const char *reason;
    } cases[] = {
        {"HTTPRoute", "{group: '', kind: Service, name: none}", "NoMatchingParent"},
        {"HTTPRoute", "{group: '', kind: Service, name: headless}", "NoMatchingParent"},
        {"HTTPRoute", "{group: '', kind: Service, name: outside}", "NoMatchingParent"},
        {"HTTPRoute", "{group: '', kind: Service, name: web, port: 53}", "NoMatchingParent"},
        {"UDPRoute", "{group: '', kind: Service, name: web, port: 80}", "NoMatchingParent"},
        {"HTTPRoute", "{group: '', kind: Service, name: web, namespace: none}", "NoMatchingParent"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text), ROUTE("%s", "shop", "r", "%s", WEB), cases[i].kind,
                 cases[i].parent);
        struct scratch scratch;
        load(&scratch, "shop", text);
        const struct route_condition *accepted = scratch_condition(&scratch, "r", NULL, "Accepted");
        cr_assert_not_null(accepted, "%s", cases[i].parent);
        cr_assert_not(accepted->status, "%s", cases[i].parent);
        cr_assert_str_eq(accepted->reason, cases[i].reason, "%s", cases[i].parent);
        cr_assert_neq(accepted->message[0], '\0');
        cr_assert_null(scratch_condition(&scratch, "r", NULL, "ResolvedRefs"));
        scratch_finish(&scratch);
    }
}

Test(attach, serves_udp_only_where_it_is_intercepted)
{
    struct scratch scratch;
    static const char route[] =
        ROUTE("UDPRoute", "shop", "dns", PARENT "}", "{name: web, port: 53}");
    load(&scratch, "shop", route);
    cr_assert(scratch_condition(&scratch, "dns", NULL, "Accepted")->status);
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 53)), 1);
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 80)), 0);
    scratch.options.can_udp = false;
    scratch_load(&scratch);
    cr_assert_not(scratch_condition(&scratch, "dns", NULL, "Accepted")->status);
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 53)), 0);
    scratch_finish(&scratch);
}

Test(attach, judges_references_as_gateway_api_names_them)
{
    static const struct {
        const char *backend;
        bool needs_grants;
        const char *reason; /* NULL: resolved */
        enum route_backend_fault fault;
    } cases[] = {
        {"{name: web, port: 80}", false, NULL, ROUTE_BACKEND_VALID},
        {"{name: none, port: 80}", false, "BackendNotFound", ROUTE_BACKEND_NOT_FOUND},
        {"{name: none, port: 80, weight: 0}", false, "BackendNotFound", ROUTE_BACKEND_NOT_FOUND},
        {"{name: web, port: 8080}", false, "BackendNotFound", ROUTE_BACKEND_PORT_NOT_FOUND},
        {"{name: web, port: 53}", false, "BackendNotFound", ROUTE_BACKEND_PORT_NOT_FOUND},
        {"{name: outside, port: 80}", false, "InvalidKind", ROUTE_BACKEND_KIND_UNSUPPORTED},
        {"{name: headless, port: 80}", false, NULL, ROUTE_BACKEND_VALID},
        {"{group: x.y, kind: Bucket, name: b}", false, "InvalidKind",
         ROUTE_BACKEND_KIND_UNSUPPORTED},
        {"{name: far, namespace: other, port: 80}", false, NULL, ROUTE_BACKEND_VALID},
        {"{name: far, namespace: other, port: 80}", true, "RefNotPermitted",
         ROUTE_BACKEND_NOT_PERMITTED},
        {"{name: open, namespace: other, port: 80}", true, NULL, ROUTE_BACKEND_VALID},
        {"{name: ws, namespace: other, port: 81}", false, "UnsupportedProtocol",
         ROUTE_BACKEND_PROTOCOL_UNSUPPORTED},
    };

    static const char others[] =
        "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: other}\n"
        "spec: {clusterIP: 10.0.1.1, ports: [{port: 80}]}\n"
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: open, namespace: other}\n"
        "spec: {clusterIP: 10.0.1.2, ports: [{port: 80}]}\n"
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: ws, namespace: other}\n"
        "spec: {clusterIP: 10.0.1.3, ports: [{port: 81, appProtocol: kubernetes.io/wss}]}\n"
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n"
        "metadata: {name: g, namespace: other}\nspec:\n"
        "  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]\n"
        "  to: [{group: '', kind: Service, name: open}]\n";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text), ROUTE("HTTPRoute", "shop", "r", PARENT ", port: 80}", "%s"),
                 cases[i].backend);
        struct scratch scratch;
        load(&scratch, "shop", text);
        scratch_write(&scratch, "others.yaml", others);
        scratch.options.require_reference_grants = cases[i].needs_grants;
        scratch_load(&scratch);
        const struct route_condition *resolved =
            scratch_condition(&scratch, "r", NULL, "ResolvedRefs");
        cr_assert_eq(resolved->status, cases[i].reason == NULL, "%s: %s", cases[i].backend,
                     resolved->message);
        cr_assert_str_eq(resolved->reason,
                         cases[i].reason == NULL ? "ResolvedRefs" : cases[i].reason, "%s",
                         cases[i].backend);
        cr_assert(scratch_condition(&scratch, "r", NULL, "Accepted")->status);
        const struct route_port *port = scratch_port(&scratch, "shop", "web", 80);
        cr_assert_eq(route_rules_at(port->rules, 0)->backends[0].fault, cases[i].fault, "%s",
                     cases[i].backend);
        scratch_finish(&scratch);
    }
}

Test(attach, drops_rules_that_it_cannot_serve_and_says_so)
{
    static const char some[] = "apiVersion: gateway.networking.k8s.io/v1\nkind: "
                               "HTTPRoute\nmetadata: {name: r, namespace: shop}\n"
                               "spec:\n  parentRefs: [" PARENT ", port: 80}]\n  rules:\n"
                               "  - matches: [{path: {type: RegularExpression, value: '('}}]\n"
                               "  - matches: [{path: {value: /a}}]\n";
    struct scratch scratch;
    load(&scratch, "shop", some);
    const struct route_condition *partial =
        scratch_condition(&scratch, "r", NULL, "PartiallyInvalid");
    cr_assert_not_null(partial);
    cr_assert(partial->status);
    cr_assert_str_eq(partial->reason, "UnsupportedValue");
    cr_assert_eq(partial->position.line, 7);
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "shop", "web", 80)), 1);
    scratch_finish(&scratch);

    static const char all[] = "apiVersion: gateway.networking.k8s.io/v1\nkind: "
                              "HTTPRoute\nmetadata: {name: r, namespace: shop}\n"
                              "spec:\n  parentRefs: [" PARENT
                              "}]\n  rules: [{matches: [{path: {type: Glob, value: /}}]}]\n";
    load(&scratch, "shop", all);
    const struct route_condition *accepted = scratch_condition(&scratch, "r", NULL, "Accepted");
    cr_assert_not(accepted->status);
    cr_assert_str_eq(accepted->reason, "UnsupportedValue");
    cr_assert_null(scratch_port(&scratch, "shop", "web", 80)->rules);
    scratch_finish(&scratch);
}

Test(attach, fails_requests_of_a_rule_whose_guard_it_does_not_know)
{
    static const char *const filters[] = {
        "{type: NewGuard}",
        "{type: ExtensionRef, extensionRef: {group: x.y, kind: Guard, name: g}}",
        "{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: BodyMatch, name: none}}",
    };
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text),
                 "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, "
                 "namespace: shop}\nspec:\n  parentRefs: [" PARENT
                 ", port: 80}]\n  rules: [{filters: [%s]}]\n",
                 filters[i]);
        struct scratch scratch;
        load(&scratch, "shop", text);
        const struct route_port *port = scratch_port(&scratch, "shop", "web", 80);
        cr_assert_eq(scratch_rules_count(port), 1, "%s", filters[i]);
        cr_assert_neq(route_rules_at(port->rules, 0)->fault, ROUTE_RULE_SOUND, "%s", filters[i]);
        scratch_finish(&scratch);
    }
}

Test(attach, excludes_two_kinds_of_session_affinity)
{
    struct scratch scratch;
    load(&scratch, "shop",
         "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, "
         "namespace: shop}\n"
         "spec:\n  parentRefs: [{group: '', kind: Service, name: sticky}]\n"
         "  rules: [{sessionPersistence: {cookie: {}}}]\n");
    cr_assert_not(scratch_condition(&scratch, "r", NULL, "Accepted")->status);
    scratch_finish(&scratch);
}

Test(index, finds_objects_by_kind_namespace_and_name)
{
    struct scratch scratch;
    load(&scratch, "shop", ROUTE("HTTPRoute", "shop", "web", PARENT "}", WEB));
    cr_assert_not_null(
        route_config_find(scratch.config, ROUTE_KIND_HTTP_ROUTE, BYTES("shop"), BYTES("web")));
    cr_assert_not_null(
        route_config_find(scratch.config, ROUTE_KIND_SERVICE, BYTES("shop"), BYTES("web")));
    cr_assert_null(
        route_config_find(scratch.config, ROUTE_KIND_GRPC_ROUTE, BYTES("shop"), BYTES("web")));
    cr_assert_null(
        route_config_find(scratch.config, ROUTE_KIND_SERVICE, BYTES("shopweb"), BYTES("")));
    scratch_finish(&scratch);
}

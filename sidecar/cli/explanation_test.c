/*
 * Explanations of a small configuration: what the conformance cases do not ask. Texts are compared
 * by the lines that matter.
 */
#include "cli/explanation.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char objects[] =
    "apiVersion: v1\n"
    "kind: Service\n"
    "metadata: {name: web, namespace: shop}\n"
    "spec:\n"
    "  clusterIP: 10.0.0.1\n"
    "  ports: [{name: http, port: 80}, {name: grpc, port: 81}, {name: tls, port: 443}, {name: "
    "http-2, port: 82}]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: HTTPRoute\n"
    "metadata: {name: web, namespace: shop}\n"
    "spec:\n"
    "  parentRefs: [{group: '', kind: Service, name: web, port: 80}]\n"
    "  rules:\n"
    "  - matches: [{path: {value: /old}}]\n"
    "    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, "
    "replacePrefixMatch: /new}}}]\n"
    "  - matches: [{path: {value: /guarded}}]\n"
    "    filters: [{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: BodyMatch, "
    "name: missing}}]\n"
    "  - matches: [{path: {value: /api}, method: PUT, headers: [{name: x-version, value: two}]}]\n"
    "    filters:\n"
    "    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: a}], "
    "remove: [x-gone]}}\n"
    "    - {type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, "
    "replacePrefixMatch: /}}}\n"
    "    backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80, weight: 1}]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: GRPCRoute\n"
    "metadata: {name: calls, namespace: shop}\n"
    "spec:\n"
    "  parentRefs: [{group: '', kind: Service, name: web, port: 81}]\n"
    "  rules: [{matches: [{method: {service: a.B}}]}]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: TLSRoute\n"
    "metadata: {name: names, namespace: shop}\n"
    "spec:\n"
    "  parentRefs: [{group: '', kind: Service, name: web, port: 443}]\n"
    "  hostnames: ['*.shop.test']\n"
    "  rules: [{backendRefs: [{name: web, port: 443}]}]\n"
    "---\n"
    "apiVersion: v1\n"
    "kind: Service\n"
    "metadata: {name: notes, namespace: shop}\n"
    "spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}, {name: other, port: 81}]}\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: HTTPRoute\n"
    "metadata: {name: half, namespace: shop}\n"
    "spec:\n"
    "  parentRefs: [{group: '', kind: Service, name: notes, port: 80}]\n"
    "  rules:\n"
    "  - matches: [{path: {type: RegularExpression, value: '/('}}]\n"
    "  - matches: [{path: {type: RegularExpression, value: '/r/[0-9]+'}, method: POST}]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: TCPRoute\n"
    "metadata: {name: loses, namespace: shop}\n"
    "spec:\n"
    "  parentRefs: [{group: '', kind: Service, name: notes}]\n"
    "  rules: [{backendRefs: [{name: notes, port: 81}]}]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: HTTPRoute\n"
    "metadata: {name: nowhere, namespace: shop}\n"
    "spec: {parentRefs: [{group: '', kind: Service, name: notes, sectionName: htpp}]}\n";

static struct route_config *load(void)
{
    char path[] = "/tmp/outrigger-explanation-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    FILE *file = fdopen(fd, "w");
    cr_assert(file != NULL);
    cr_assert(fputs(objects, file) >= 0 && fclose(file) == 0);
    const char *paths[] = {path};
    struct route_load_options options = {
        .paths = paths, .paths_count = 1, .namespace = BYTES("shop"), .can_udp = true};
    struct route_diagnostics diagnostics;
    struct route_config *config = NULL;
    route_diagnostics_init(&diagnostics);
    struct error error = route_config_load(&options, NULL, &diagnostics, &config);
    cr_assert(!error_is(error), "%s",
              diagnostics.count == 0 ? error_text(error.code) : diagnostics.items[0].message);
    route_diagnostics_finish(&diagnostics);
    cr_assert(unlink(path) == 0);
    return config;
}

struct text_case {
    const char *to;
    const char *method;
    const char *target;
    const char *header_name;
    const char *header_value;
    const char *sni;
    const char *lines[6]; /* each must be there */
};

static const struct text_case cases[] = {
    {.to = "web.shop:80",
     .method = "PUT",
     .target = "/api/cart?a=b",
     .header_name = "X-Version",
     .header_value = "two",
     .lines = {"chosen: shop/web, rule 2, match 0   ", "set request header x-set: a",
               "remove request header x-gone", " 75.0%  web.shop:80   1 endpoint",
               "forwarded as /cart?a=b, host inner.test",
               " 25.0%  gone.shop:80   no such Service   answered 500: "}},
    {.to = "web.shop:80",
     .target = "/api/cart",
     .lines = {"answered by the proxy: 404: ", "(no_route)",
               "closest: shop/web, rule 2 wanted PUT, got GET"}},
    {.to = "web.shop:80",
     .method = "PUT",
     .target = "/api",
     .lines = {"closest: shop/web, rule 2 wanted x-version: two, got no such header"}},
    {.to = "web.shop:80",
     .target = "/old/x?q",
     .lines = {"answered by the proxy: 302 to http://web.shop/new/x?q\n"}},
    {.to = "web.shop:80",
     .target = "/guarded",
     .lines = {"an extensionRef of the rule cannot be resolved", "500: ", "(invalid_backend)"}},
    {.to = "web.shop:80",
     .target = "/a/../../b",
     .lines = {"answered by the proxy: 400: ", "(request_malformed)"}},
    {.to = "10.0.0.1:80", .target = "/old", .lines = {"302 to http://10.0.0.1/new"}},
    {.to = "web.shop:81",
     .target = "/a.B/Call",
     .lines = {"POST /a.B/Call", "taken for a gRPC call", "because of service Exact a.B",
               "100.0%  web.shop:81"}},
    {.to = "web.shop:81",
     .target = "/a.C/Call",
     .lines = {"200 with grpc-status 12", "service: wanted Exact a.B, got /a.C/Call"}},
    {.to = "web.shop:81",
     .method = "GET",
     .target = "/a.B/Call",
     .lines =
         {"404: ",
          "protocol: wanted a gRPC call (content-type: application/grpc), got no content-type"}},
    {.to = "web.shop:443",
     .sni = "a.shop.test",
     .lines = {"a connection for a.shop.test to web.shop:443", "because of server name *.shop.test",
               "100.0%  web.shop:443"}},
    {.to = "web.shop:443",
     .lines = {"answered by the proxy: refused: ", "sni: wanted *.shop.test, got no server name"}},
    {.to = "web.shop:82",
     .target = "/../x",
     .lines = {"GET /../x to web.shop:82", "no route is attached to this port",
               "100.0%  web.shop:82"}},
    {.to = "notes.shop:80",
     .target = "/x",
     .lines = {"path: wanted RegularExpression /r/[0-9]+, got /x", "not in force here:\n",
               "HTTPRoute shop/half   ", "PartiallyInvalid=True (UnsupportedValue): Dropped Rule",
               "TCPRoute shop/loses   ",
               "Accepted=False (NoMatchingParent): Service shop/notes has no such TCP port"}},
    {.to = "notes.shop:80",
     .target = "/r/1",
     .lines = {"closest: shop/half, rule 1 wanted POST, got GET"}},
    {.to = "192.0.2.1:9", .lines = {"the address belongs to no Service, so it passes through"}},
    {.to = "[2001:db8::1]:9", .lines = {"belongs to no Service"}},
};

static struct explanation_request make_request(const struct text_case *row,
                                               struct route_field *field)
{
    *field = (struct route_field){bytes_from_string(row->header_name),
                                  bytes_from_string(row->header_value)};
    return (struct explanation_request){
        .to = bytes_from_string(row->to),
        .method = bytes_from_string(row->method),
        .target = bytes_from_string(row->target),
        .sni = bytes_from_string(row->sni),
        .fields = field,
        .fields_count = row->header_name == NULL ? 0 : 1,
    };
}

Test(explanation, says_in_words_what_happens_and_why)
{
    struct route_config *config = load();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct route_field field;
        struct explanation_request request = make_request(&cases[i], &field);
        char message[200] = "";
        char *text = NULL;
        struct error error = explanation_text(config, 7, &request, &text, message, sizeof(message));
        cr_assert(!error_is(error), "%s: %s", cases[i].to, message);
        cr_expect(strstr(text, "(generation 7)") != NULL);
        for (size_t line = 0; line < 6 && cases[i].lines[line] != NULL; line++) {
            cr_expect(strstr(text, cases[i].lines[line]) != NULL, "\"%s\" is not in:\n%s",
                      cases[i].lines[line], text);
        }
        free(text);
    }
    route_config_unref(config);
}

Test(explanation, is_json_with_the_members_of_the_contract)
{
    static const char *const members[] = {
        "\"generation\": 7,",
        "\"service\": \"web.shop\",",
        "\"port\": 80,",
        "\"routeKind\": \"HTTPRoute\",",
        "\"set\": \"producer\",",
        "\"chosen\": null,",
        "\"filters\": [],",
        "\"backends\": [],",
        "\"response\": {",
        "\"status\": 404,",
        "\"cause\": \"no_route\"",
        "\"rejected\": [",
        "\"route\": \"shop/web\",",
        "\"rule\": \"2\",",
        "\"match\": 0,",
        "\"line\": 18",
        "\"failed\": {",
        "\"predicate\": \"method\",",
        "\"wanted\": \"PUT\",",
        "\"got\": \"GET\"",
        "\"notes\": []",
    };
    struct route_config *config = load();
    struct explanation_request request = {.to = BYTES("web.shop:80"), .target = BYTES("/api")};
    struct json *json = NULL;
    char message[200] = "";
    cr_assert(!error_is(explanation_json(config, 7, &request, &json, message, sizeof(message))));
    char *text = json_print(json, 2);
    cr_assert(text != NULL);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        cr_expect(strstr(text, members[i]) != NULL, "%s is not in %s", members[i], text);
    }
    free(text);
    route_config_unref(config);
}

Test(explanation, says_what_is_wrong_with_a_destination)
{
    static const struct {
        const char *to;
        enum error_code code;
        const char *message;
    } rows[] = {
        {"web", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"web.shop", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"web:80", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {":80", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"web.shop:0", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"web.shop:65536", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"web.shop:x", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"[:80", ERROR_USAGE, "SERVICE.NAMESPACE:PORT"},
        {"nobody.shop:80", ERROR_NOT_FOUND, "no such Service: nobody.shop"},
        {"web.shop:8080", ERROR_NOT_FOUND, "no such port: web.shop:8080; it has 80, 81, 443, 82"},
        {"wbe.shop:80", ERROR_NOT_FOUND, "no such Service: wbe.shop; did you mean web.shop?"},
        {"web.bank:80", ERROR_NOT_FOUND, "no such Service: web.bank; did you mean web.shop?"},
    };
    struct route_config *config = load();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct explanation_request request = {.to = bytes_from_string(rows[i].to)};
        char message[200] = "";
        char *text = NULL;
        struct error error = explanation_text(config, 1, &request, &text, message, sizeof(message));
        cr_expect(error.code == rows[i].code, "%s", rows[i].to);
        cr_expect(strstr(message, rows[i].message) != NULL, "%s: %s", rows[i].to, message);
    }
    route_config_unref(config);
}

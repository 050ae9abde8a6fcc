/* Lints: each says its code at its place, with what was meant; and a sound configuration has none.
 */
#include "routes/lint.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routes/scratch_test.h"

#define SERVICE                                                                                    \
    "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"                      \
    "spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}\n"             \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: bank}\n"                 \
    "spec: {clusterIP: 10.0.0.2, ports: [{name: a, port: 80}, {name: b, port: 81}]}\n"             \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: shop}\n"                 \
    "spec: {type: ExternalName, externalName: a.test}\n"

/* Line 1 of routes.yaml is apiVersion; the spec begins on line 4. */
static void lint(struct scratch *scratch, const char *kind, const char *spec)
{
    char text[4096];
    scratch_init(scratch);
    scratch_write(scratch, "a-services.yaml", SERVICE);
    snprintf(text, sizeof(text),
             "apiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: r, namespace: "
             "shop}\n%s",
             kind, spec);
    scratch_write(scratch, "routes.yaml", text);
    scratch_load(scratch);
    cr_assert(!error_is(scratch->error), "%s", scratch->diagnostics.items[0].message);
    route_lint(scratch->config, &scratch->diagnostics);
}

#define PARENT "spec:\n  parentRefs: [{group: '', kind: Service, name: web, port: 80}]\n"

Test(lint, has_nothing_to_say_of_a_sound_route)
{
    struct scratch scratch;
    lint(&scratch, "HTTPRoute",
         PARENT
         "  rules:\n"
         "  - matches: [{path: {value: /a}}, {path: {type: Exact, value: /b}}]\n"
         "    backendRefs: [{name: web, port: 80, weight: 9}, {name: pay, namespace: bank, port: "
         "81, weight: 0}]\n"
         "  - matches: [{path: {value: /a}, headers: [{name: x, value: y}]}]\n"
         "  - backendRefs: [{name: web, port: 80}]\n");
    cr_assert_eq(scratch.diagnostics.count, 0, "%s: %s", scratch.diagnostics.items[0].code,
                 scratch.diagnostics.items[0].message);
    scratch_finish(&scratch);
}

static const struct {
    const char *spec;
    const char *code;
    uint32_t line;
    const char *suggestion; /* NULL: none */
    const char *caret;      /* what the caret stands under begins so; NULL: not looked at */
} lints[] = {
    {PARENT "  rules:\n  - backendRefs: [{name: wbe, port: 80}]\n", "service-not-found", 7,
     "name: web", "wbe,"},
    {PARENT "  rules:\n  - backendRefs: [{name: pay, port: 80}]\n", "service-not-found", 7,
     "namespace: bank", NULL},
    {PARENT "  rules:\n  - backendRefs: [{name: unlike, port: 80}]\n", "service-not-found", 7, NULL,
     NULL},
    {PARENT "  rules:\n  - backendRefs: [{name: web, port: 8080}]\n", "target-port", 7, "port: 80",
     "8080"},
    {PARENT "  rules:\n  - backendRefs: [{name: web, port: 90}]\n", "port-not-found", 7, "port: 80",
     "90}"},
    {PARENT "  rules:\n  - backendRefs: [{name: pay, namespace: bank, port: 90}]\n",
     "port-not-found", 7, NULL, NULL},
    {PARENT "  rules:\n  - backendRefs: [{name: web, port: 80, weight: 0}]\n", "weights-zero", 7,
     NULL, NULL},
    {PARENT "  rules:\n  - backendRefs: [{group: x.y, kind: Service, name: web}]\n", "backend-kind",
     7, "group: \"\"", NULL},
    {PARENT
     "  rules:\n  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: weg, port: "
     "80}}}]\n",
     "service-not-found", 7, "name: web", NULL},
    {PARENT
     "  rules:\n  - filters: [{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: "
     "BodyMatch, name: gold}}]\n",
     "extension-not-found", 7, NULL, NULL},
    {PARENT "  hostnames: [a.b]\n", "hostnames-ignored", 6, NULL, NULL},
    {"spec:\n  parentRefs: [{kind: Service, name: web}]\n", "parent-group", 5, "group: \"\"", NULL},
    {"spec:\n  parentRefs: [{group: core, kind: Service, name: web}]\n", "parent-group", 5,
     "group: \"\"", NULL},
    {"spec:\n  parentRefs: [{group: '', kind: Service, name: web, port: 8080}]\n", "target-port", 5,
     "port: 80", "8080"},
    {"spec:\n  parentRefs: [{group: '', kind: Service, name: web, sectionName: htpp}]\n",
     "port-not-found", 5, "sectionName: http", "htpp"},
    {"spec:\n  parentRefs: [{group: '', kind: Service, name: pay, namespace: bank, sectionName: "
     "'81'}]\n",
     "port-not-found", 5, "port: 81", "'81'"},
    {PARENT "  rules:\n  - backendRefs: [{name: web.shop.svc.cluster.local, port: 80}]\n",
     "service-not-found", 7, "name: web", "web.shop"},
    {PARENT "  rules:\n  - backendRefs: [{name: pay.bank, port: 80}]\n", "service-not-found", 7,
     "name: pay, namespace: bank", "pay.bank"},
    {PARENT "  rules:\n  - backendRefs: [{name: far, port: 80}]\n", "backend-kind", 7, NULL, "far"},
    {"spec:\n  parentRefs: [{group: '', kind: Service, name: pay, namespace: bank, sectionName: "
     "zzz}]\n",
     "port-not-found", 5, NULL, "zzz}"},
    {"spec:\n  parentRefs: [{group: '', kind: Service, name: wep}]\n", "service-not-found", 5,
     "name: web", "wep"},
    {"spec:\n  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}]\n",
     "parent-kind", 5, NULL, NULL},
    {"spec: {}\n", "no-parent", 3, NULL, NULL},
    {PARENT "  rules:\n  - matches:\n    - headers: [{name: X, value: a}, {name: x, value: b}]\n",
     "header-repeated", 8, NULL, NULL},
    {PARENT "  rules:\n  - matches: [{path: {value: /a}}]\n  - matches: [{path: {value: /a/}}]\n",
     "match-unreachable", 8, NULL, NULL},
    {PARENT "  rules:\n  - matches: [{path: {type: Exact, value: /a}}]\n  - matches: [{path: "
            "{type: Exact, "
            "value: /a}}]\n",
     "match-unreachable", 8, NULL, NULL},
    {PARENT "  rules:\n  - matches: [{path: {type: RegularExpression, value: /x}}]\n  - {}\n",
     "match-unreachable", 7, NULL, NULL},
    {PARENT "  rules:\n  - matches: [{path: {type: RegularExpression, value: (}}]\n  - {}\n",
     "condition", 7, NULL, NULL},
    {PARENT "  rules:\n  - matchs: []\n", "unknown-field", 7, "matches", "matchs"},
    {PARENT "  rules:\n  - matches: [{query: []}]\n", "unknown-field", 7, "queryParams", "query"},
    {PARENT "  rules:\n  - matches: [{path: {type: Prefix, value: /}}]\n", "unsupported-value", 7,
     "PathPrefix", "Prefix"},
    {PARENT "  rules:\n  - matches: [{path: {type: regex, value: /}}]\n", "unsupported-value", 7,
     "RegularExpression", "regex"},
    {PARENT "  rules:\n  - filters: [{type: HeaderModifier}]\n", "unsupported-value", 7, NULL,
     "HeaderModifier"},
    {PARENT "  rules:\n  - filters: [{type: TokenCheck}]\n", "unsupported-filter", 7, NULL, "{"},
};

Test(lint, tells_each_mistake_at_its_place)
{
    for (size_t i = 0; i < sizeof(lints) / sizeof(lints[0]); i++) {
        struct scratch scratch;
        lint(&scratch, "HTTPRoute", lints[i].spec);
        const struct route_diagnostic *found = scratch_find(&scratch, lints[i].code);
        cr_assert_not_null(found, "%s: nothing of %s", lints[i].spec, lints[i].code);
        cr_assert_eq(found->severity, ROUTE_SEVERITY_WARNING);
        cr_assert_eq(found->position.line, lints[i].line, "%s: line %u", lints[i].spec,
                     found->position.line);
        if (lints[i].suggestion == NULL) {
            cr_assert_null(found->suggestion, "%s: %s", lints[i].spec, found->suggestion);
        } else {
            cr_assert_str_eq(found->suggestion, lints[i].suggestion, "%s", lints[i].spec);
        }
        if (lints[i].caret != NULL) {
            const char *line = lints[i].spec;
            for (uint32_t number = 4; number < lints[i].line; number++) {
                line = strchr(line, '\n') + 1;
            }
            const char *under = line + found->position.column - 1;
            cr_assert_eq(strncmp(under, lints[i].caret, strlen(lints[i].caret)), 0, "%s: %s",
                         lints[i].spec, under);
        }
        scratch_finish(&scratch);
    }
}

Test(lint, says_what_becomes_of_a_mirror_without_a_target)
{
    struct scratch scratch;
    lint(&scratch, "HTTPRoute",
         PARENT "  rules:\n  - filters: [{type: RequestMirror, requestMirror: {backendRef: {group: "
                "x.y, kind: Z, name: a}}}]\n");
    const struct route_diagnostic *found = scratch_find(&scratch, "backend-kind");
    cr_assert_not_null(found);
    cr_assert_not_null(strstr(found->message, "nothing is mirrored"), "%s", found->message);
    scratch_finish(&scratch);
}

Test(lint, looks_for_names_only_so_long)
{
    enum {
        COUNT = 1000
    };

    struct scratch scratch;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_not_null(out);
    for (int i = 0; i < COUNT; i++) {
        (void)fprintf(
            out,
            "apiVersion: v1\nkind: Service\nmetadata: {name: a-service-%d}\nspec: {ports: "
            "[{port: 80}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: "
            "TCPRoute\nmetadata: {name: r%d}\nspec: {parentRefs: [{group: '', kind: "
            "Service, name: a-servise-%d}], rules: [{backendRefs: [{name: a-service-%d, "
            "port: 80}]}]}\n---\n",
            i, i, i, i);
    }
    cr_assert_eq(fclose(out), 0);
    scratch_init(&scratch);
    scratch_write(&scratch, "many.yaml", text);
    free(text);
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    route_lint(scratch.config, &scratch.diagnostics);
    cr_assert_eq(scratch.diagnostics.warnings_count, COUNT);
    uint32_t suggestions = 0;
    for (uint32_t i = 0; i < scratch.diagnostics.count; i++) {
        suggestions += scratch.diagnostics.items[i].suggestion != NULL;
    }
    cr_expect_gt(suggestions, COUNT / 4);
    cr_expect_lt(suggestions, COUNT);
    scratch_finish(&scratch);
}

Test(lint, names_the_rule_that_takes_the_requests)
{
    struct scratch scratch;
    lint(&scratch, "HTTPRoute",
         PARENT "  rules:\n  - matches: [{path: {value: /a}, method: GET}]\n"
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
                "metadata: {name: older, namespace: shop, creationTimestamp: "
                "'2020-01-01T00:00:00Z'}\n" PARENT
                "  rules:\n  - name: first\n    matches: [{path: {value: /a}, method: GET}]\n");
    const struct route_diagnostic *found = scratch_find(&scratch, "match-duplicate");
    cr_assert_not_null(found);
    cr_assert_eq(found->position.line, 7);
    cr_assert_not_null(
        strstr(found->message, "rule first of HTTPRoute shop/older (routes.yaml:16)"), "%s",
        found->message);
    cr_assert_not_null(strstr(found->message, "older"));
    scratch_finish(&scratch);
}

Test(lint, looks_at_policies_too)
{
    struct scratch scratch;
    lint(&scratch, "BackendTLSPolicy",
         "spec:\n  targetRefs: [{group: '', kind: Service, name: web, sectionName: https}]\n"
         "  validation: {hostname: a.b, caCertificateRefs: [{group: '', kind: ConfigMap, name: "
         "ca}]}\n");
    cr_assert_not_null(scratch_find(&scratch, "ca-not-found"));
    cr_assert_not_null(scratch_find(&scratch, "port-not-found"));
    scratch_finish(&scratch);
}

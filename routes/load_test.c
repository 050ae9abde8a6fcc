/* Loading directories: what is read, what refuses, what is shared; and the hostile set. */
#include "routes/load.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "routes/scratch_test.h"

#define SERVICE(name, ip)                                                                          \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: " name "}\nspec: {clusterIP: " ip        \
    ", ports: [{name: http, port: 80}]}\n"
#define HTTP_ROUTE(name, service, path)                                                            \
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " name       \
    "}\nspec:\n  parentRefs: [{group: '', kind: Service, name: " service                           \
    "}]\n  rules: [{matches: [{path: {value: " path "}}], backendRefs: [{name: " service           \
    ", port: 80}]}]\n"

Test(load, takes_an_empty_directory_and_reads_only_what_is_configuration)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    cr_assert_eq(route_config_stats(scratch.config).files, 0);
    scratch_write(&scratch, "a.yaml", SERVICE("a", "10.0.0.1"));
    scratch_write(&scratch, "b.yml", SERVICE("b", "10.0.0.2"));
    scratch_write(
        &scratch, "c.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"c\"}, "
        "\"spec\": {\"clusterIP\": \"10.0.0.3\", \"ports\": [{\"port\": 80, \"name\": "
        "\"\\u0061\"}]}}");
    scratch_write(
        &scratch, "d.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"d\"}, "
        "\"data\": {\"a\": \"\\ud83d\\ude00\"}}");
    scratch_write(&scratch, ".hidden.yaml", "[[[");
    scratch_write(&scratch, "readme.txt", "[[[");
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    cr_assert_eq(route_config_stats(scratch.config).files, 4);
    cr_assert_eq(route_services_count(route_config_services(scratch.config)), 3);
    cr_assert(bytes_equal(scratch_port(&scratch, "default", "c", 80)->source->name, BYTES("a")));
    const struct route_data *map = (const struct route_data *)route_config_find(
        scratch.config, ROUTE_KIND_CONFIG_MAP, BYTES("default"), BYTES("d"));
    cr_assert_not_null(map);
    cr_assert(bytes_equal(map->data[0].value, BYTES("\xf0\x9f\x98\x80")));
    scratch_finish(&scratch);
}

Test(load, reads_lists_as_kubectl_prints_them)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(
        &scratch, "all.yaml",
        "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n"
        "- apiVersion: v1\n  kind: Service\n  metadata:\n    name: web\n"
        "    annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}\n"
        "    managedFields: [{fieldsV1: {'f:spec': {'k:{\"port\":80}': {}}}}]\n"
        "  spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n  status: {loadBalancer: {}}\n"
        "- apiVersion: gateway.networking.k8s.io/v1\n  kind: HTTPRoute\n  metadata: {name: r}\n"
        "  spec: {parentRefs: [{kind: Service, name: web, group: ''}]}\n"
        "  status: {parents: [{conditions: [{type: Accepted}]}]}\n");
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    cr_assert_eq(scratch.diagnostics.count, 0);
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "default", "web", 80)), 1);
    scratch_finish(&scratch);
}

Test(load, names_a_generation_by_its_files)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_load(&scratch);
    char empty[ROUTE_CONFIG_HASH_BYTES];
    memcpy(empty, route_config_hash(scratch.config), sizeof(empty));
    cr_assert_str_eq(empty, "e3b0c44298fc"); /* SHA-256 of nothing */
    scratch_write(&scratch, "a.yaml", "# x\n");
    scratch_load(&scratch);
    /* printf 'a.yaml\0# x\n' | sha256sum */
    cr_assert_str_eq(route_config_hash(scratch.config), "8c6d38fa0b6e");
    scratch_finish(&scratch);
}

Test(load, refuses_the_generation_and_keeps_nothing_of_it)
{
    static const struct {
        const char *text;
        const char *code;
        uint32_t line;
    } cases[] = {
        {"a: [", "not-yaml", 2},
        {"a: &x 1\nb: *x\n", "alias", 1},
        {"kind: Service\n", "no-kind", 1},
        {"- 1\n", "not-an-object", 1},
        {SERVICE("a", "10.0.0.1") SERVICE("a", "10.0.0.2"), "object-twice", 7},
        {"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}\n",
         "out-of-range", 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scratch scratch;
        scratch_init(&scratch);
        scratch_write(&scratch, "good.yaml", SERVICE("good", "10.0.0.9"));
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error));
        scratch_write(&scratch, "x.yaml", cases[i].text);
        scratch_load(&scratch);
        cr_assert_eq(scratch.error.code, ERROR_CONFIG, "%s", cases[i].text);
        const struct route_diagnostic *found = scratch_find(&scratch, cases[i].code);
        cr_assert_not_null(found, "%s: %s", cases[i].text, scratch.diagnostics.items[0].code);
        cr_assert_str_eq(found->position.file, "x.yaml");
        cr_assert_eq(found->position.line, cases[i].line, "%s: line %u", cases[i].text,
                     found->position.line);
        scratch_write(&scratch, "x.yaml", "");
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error), "the last good one must still serve as the previous");
        scratch_finish(&scratch);
    }
}

Test(load, does_not_refuse_what_a_cluster_is_full_of)
{
    static const char *const texts[] = {
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {}\n",
        "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\nmetadata: {name: a}\nspec: "
        "{}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: FutureRoute\nmetadata: {name: a}\nspec: "
        "{}\n",
        HTTP_ROUTE("r", "none", "/"),
        SERVICE("a", "10.0.0.1") SERVICE("a", "10.0.0.1"),
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct scratch scratch;
        scratch_init(&scratch);
        scratch_write(&scratch, "x.yaml", texts[i]);
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error), "%s: %s", texts[i],
                  scratch.diagnostics.items[0].message);
        scratch_finish(&scratch);
    }
}

Test(load, suggests_the_kind_or_version_that_was_meant)
{
    static const struct {
        const char *text;
        const char *suggestion; /* NULL: nothing is said at all; "": no suggestion */
    } cases[] = {
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoutes\nmetadata: {name: a}\n",
         "kind: HTTPRoute"},
        {"apiVersion: v1\nkind: Servise\nmetadata: {name: a}\n", "kind: Service"},
        {"apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: a}\n",
         "apiVersion: gateway.networking.k8s.io/v1"},
        {"apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: a}\n",
         "apiVersion: discovery.k8s.io/v1"},
        {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", NULL},
        {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", NULL},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\n", NULL},
        {"apiVersion: gateways.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n",
         "apiVersion: gateway.networking.k8s.io/v1"},
        {"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", NULL},
        {"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n", ""},
        {"apiVersion: v1\nkind: Widget\nmetadata: {name: a}\n", ""},
        {"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]\n", ""},
        {"apiVersion: v1\nkind: List\nitems:\n", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scratch scratch;
        scratch_init(&scratch);
        scratch_write(&scratch, "x.yaml", cases[i].text);
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error));
        const struct route_diagnostic *found = scratch_find(&scratch, "unknown-kind");
        cr_assert_eq(found != NULL, cases[i].suggestion != NULL, "%s", cases[i].text);
        if (found != NULL) {
            const char *suggestion = found->suggestion == NULL ? "" : found->suggestion;
            cr_assert_str_eq(suggestion, cases[i].suggestion, "%s", cases[i].text);
        }
        scratch_finish(&scratch);
    }
}

Test(load, suggests_what_a_key_was_meant_to_be)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "x.yaml", "kind: Service\napiversion: v1\nmetadata: {name: a}\n");
    scratch_load(&scratch);
    const struct route_diagnostic *found = scratch_find(&scratch, "no-kind");
    cr_assert_not_null(found);
    cr_expect_eq(found->position.line, 2);
    cr_assert_not_null(found->suggestion);
    cr_expect_str_eq(found->suggestion, "apiVersion");
    scratch_finish(&scratch);
}

Test(load, keeps_places_when_only_a_part_of_a_file_is_parsed)
{
    static const struct {
        const char *last; /* document, that begins on line 12 */
        const char *code;
        uint32_t line;
        uint32_t column;
    } cases[] = {
        {"a: \xff\n", "not-utf8", 12, 4},         {"a:\n\tb: 1\n", "not-yaml", 13, 1},
        {"a: [1\n", "not-yaml", 13, 1},           {"a: \x01\n", "control-character", 12, 4},
        {"a: 1\na: 2\n", "duplicate-key", 13, 1}, {"a: \"\\0\"\n", "nul-byte", 12, 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        struct scratch scratch;
        scratch_init(&scratch);
        snprintf(text, sizeof(text), "%s%s---\n", SERVICE("a", "10.0.0.1"),
                 SERVICE("b", "10.0.0.2"));
        scratch_write(&scratch, "x.yaml", text);
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error));
        size_t size = strlen(text);
        snprintf(text + size, sizeof(text) - size, "%s", cases[i].last);
        uint32_t lines = 1;
        for (size_t at = 0; at < size; at++) {
            lines += text[at] == '\n';
        }
        cr_assert_eq(lines, 12, "%u", lines);
        scratch_write(&scratch, "x.yaml", text);
        scratch_load(&scratch);
        cr_assert_eq(scratch.error.code, ERROR_CONFIG);
        const struct route_diagnostic *found = scratch_find(&scratch, cases[i].code);
        cr_assert_not_null(found, "case %zu: %s", i, scratch.diagnostics.items[0].code);
        cr_expect_eq(found->position.line, cases[i].line, "case %zu: line %u", i,
                     found->position.line);
        cr_expect_eq(found->position.column, cases[i].column, "case %zu: column %u", i,
                     found->position.column);
        scratch_finish(&scratch);
    }
}

Test(load, says_that_a_directory_has_too_many_files)
{
    struct scratch scratch;
    scratch_init(&scratch);
    for (int i = 0; i <= 10000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%d.yaml", i);
        scratch_write(&scratch, name, "");
    }
    scratch_load(&scratch);
    cr_expect_eq(scratch.error.code, ERROR_CONFIG);
    const struct route_diagnostic *found = scratch_find(&scratch, "config-too-large");
    cr_assert_not_null(found);
    cr_expect_not_null(strstr(found->message, "10,000 files"), "%s", found->message);
    scratch_finish(&scratch);
}

Test(load, refuses_a_list_whose_items_are_none)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "x.yaml", "apiVersion: v1\nkind: List\nitems: {a: b}\n");
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_not_null(scratch_find(&scratch, "wrong-type"));
    scratch_finish(&scratch);
}

Test(load, leaves_single_invalid_routes_out_when_asked_to)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "x.yaml",
                  SERVICE("a", "10.0.0.1") HTTP_ROUTE("good", "a", "/a")
                      HTTP_ROUTE("bad", "a", "a"));
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    scratch.options.skip_invalid_objects = true;
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    cr_assert_eq(scratch_rules_count(scratch_port(&scratch, "default", "a", 80)), 1);
    cr_assert_eq(scratch_find(&scratch, "invalid-path")->severity, ROUTE_SEVERITY_WARNING);
    scratch_finish(&scratch);
}

Test(load, parses_and_compiles_only_what_changed)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "services.yaml", SERVICE("a", "10.0.0.1") SERVICE("b", "10.0.0.2"));
    scratch_write(&scratch, "a.yaml", HTTP_ROUTE("ra", "a", "/a"));
    scratch_write(&scratch, "b.yaml", HTTP_ROUTE("rb", "b", "/b"));
    scratch_load(&scratch);
    struct route_load_stats stats = route_config_stats(scratch.config);
    cr_assert_eq(stats.files_parsed, 3);
    cr_assert_eq(stats.tables_compiled, 2);
    const struct route_rules *rules_of_a = scratch_port(&scratch, "default", "a", 80)->rules;

    scratch_load(&scratch);
    stats = route_config_stats(scratch.config);
    cr_assert_eq(stats.files_parsed, 0);
    cr_assert_eq(stats.tables, 2);
    cr_assert_eq(stats.tables_compiled, 0);

    scratch_write(&scratch, "b.yaml", HTTP_ROUTE("rb", "b", "/c"));
    scratch_load(&scratch);
    stats = route_config_stats(scratch.config);
    cr_assert_eq(stats.files_parsed, 1);
    cr_assert_eq(stats.tables_compiled, 1);
    cr_assert_eq(scratch_port(&scratch, "default", "a", 80)->rules, rules_of_a);

    /* A backend that goes away changes the table, although the route's file did not change. */
    scratch_write(&scratch, "a.yaml", HTTP_ROUTE("ra", "a", "/a") HTTP_ROUTE("rx", "b", "/x"));
    scratch_load(&scratch);
    scratch_write(&scratch, "services.yaml",
                  SERVICE("a", "10.0.0.1") SERVICE("b", "10.0.0.2") "\n");
    scratch_load(&scratch);
    stats = route_config_stats(scratch.config);
    cr_assert_eq(stats.files_parsed, 1);
    cr_assert_eq(stats.objects_decoded, 0);
    cr_assert_eq(stats.tables_compiled, 0, "Services that say the same must not cost a table");
    scratch_finish(&scratch);
}

Test(load, compiles_only_what_changed_within_one_file)
{
    static const char misspelt[] =
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        "metadata: {name: m}\nspec: {parentRefs: [], rulez: []}\n";
    struct scratch scratch;
    char text[4096];
    scratch_init(&scratch);
    for (uint32_t round = 0; round < 2; round++) {
        snprintf(text, sizeof(text), "%s%s%s%s%s%s",
                 SERVICE("a", "10.0.0.1") SERVICE("b", "10.0.0.2"), misspelt,
                 HTTP_ROUTE("ra", "a", "/a"), "status: {generation: ", round == 0 ? "1}\n" : "2}\n",
                 round == 0 ? HTTP_ROUTE("rb", "b", "/b") : HTTP_ROUTE("rb", "b", "/c"));
        scratch_write(&scratch, "all.yaml", text);
        const struct route_rules *before =
            round == 0 ? NULL : scratch_port(&scratch, "default", "a", 80)->rules;
        scratch_load(&scratch);
        cr_assert(!error_is(scratch.error));
        struct route_load_stats stats = route_config_stats(scratch.config);
        cr_assert_eq(stats.objects_decoded, round == 0 ? 5 : 1);
        cr_assert_eq(stats.tables_compiled, round == 0 ? 2 : 1);
        if (round > 0) {
            cr_assert_eq(scratch_port(&scratch, "default", "a", 80)->rules, before);
        }
        /* What was said of an object that is shared is said again. */
        cr_assert_not_null(scratch_find(&scratch, "unknown-field"));
    }
    scratch_finish(&scratch);
}

Test(load, decodes_again_what_has_moved)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "all.yaml", SERVICE("a", "10.0.0.1") HTTP_ROUTE("ra", "a", "/a"));
    scratch_load(&scratch);
    scratch_write(&scratch, "all.yaml",
                  "# a line\n" SERVICE("a", "10.0.0.1") HTTP_ROUTE("ra", "a", "/a"));
    scratch_load(&scratch);
    const struct route_object *route =
        route_config_find(scratch.config, ROUTE_KIND_HTTP_ROUTE, BYTES("default"), BYTES("ra"));
    cr_assert_eq(route->position.line, 8);
    cr_assert_eq(route_config_stats(scratch.config).objects_decoded, 2);
    scratch_finish(&scratch);
}

Test(load, notices_a_backend_that_appears_in_another_file)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "a.yaml", SERVICE("a", "10.0.0.1"));
    scratch_write(
        &scratch, "r.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n"
        "  parentRefs: [{group: '', kind: Service, name: a}]\n"
        "  rules: [{backendRefs: [{name: late, port: 80}]}]\n");
    scratch_load(&scratch);
    cr_assert_eq(
        route_rules_at(scratch_port(&scratch, "default", "a", 80)->rules, 0)->backends[0].fault,
        ROUTE_BACKEND_NOT_FOUND);
    scratch_write(&scratch, "late.yaml", SERVICE("late", "10.0.0.2"));
    scratch_load(&scratch);
    cr_assert_eq(
        route_rules_at(scratch_port(&scratch, "default", "a", 80)->rules, 0)->backends[0].fault,
        ROUTE_BACKEND_VALID);
    scratch_finish(&scratch);
}

Test(load, follows_a_volume_of_kubernetes_and_no_other_link)
{
    struct scratch scratch;
    scratch_init(&scratch);
    char path[256];
    char target[256];
    snprintf(path, sizeof(path), "%s/..v1", scratch.directory);
    cr_assert_eq(mkdir(path, 0700), 0);
    scratch_write(&scratch, "..v1/a.yaml", SERVICE("a", "10.0.0.1"));
    snprintf(path, sizeof(path), "%s/..data", scratch.directory);
    cr_assert_eq(symlink("..v1", path), 0);
    snprintf(path, sizeof(path), "%s/a.yaml", scratch.directory);
    cr_assert_eq(symlink("..data/a.yaml", path), 0);
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    cr_assert_eq(route_config_stats(scratch.config).objects, 1);

    /* An absolute link that comes back in is as good. */
    unlink(path);
    snprintf(target, sizeof(target), "%s/..v1/a.yaml", scratch.directory);
    cr_assert_eq(symlink(target, path), 0);
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));

    snprintf(path, sizeof(path), "%s/b.yaml", scratch.directory);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_str_eq(scratch.diagnostics.items[0].code, "file-unreadable");

    snprintf(target, sizeof(target), "%s/..v1/a.yaml", scratch.directory);
    unlink(target);
    snprintf(target, sizeof(target), "%s/..v1", scratch.directory);
    rmdir(target);
    scratch_finish(&scratch);
}

/* ---- The hostile set: reliability part H ---- */

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* Sanitizers multiply time and memory; the bounds of the issue hold for the builds without. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum {
    MS_MAX = 2000,
    KIB_MAX = 1 << 20
};
#else
enum {
    MS_MAX = 50,
    KIB_MAX = 32 << 10
};
#endif

/* Load one hostile file: refused, with that code, in the time and memory that are allowed. */
static void expect_refusal(const char *what, struct bytes content, const char *code)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write_bytes(&scratch, "x.yaml", content);
    long before_kib = peak_kib();
    double begin = cpu_ms();
    scratch_load(&scratch);
    double spent = cpu_ms() - begin;
    cr_assert_eq(scratch.error.code, ERROR_CONFIG, "%s was taken", what);
    cr_assert_not_null(scratch_find(&scratch, code), "%s: %s (%s)", what,
                       scratch.diagnostics.items[0].code, scratch.diagnostics.items[0].message);
    cr_assert_lt(spent, MS_MAX, "%s took %.1f ms", what, spent);
    cr_assert_lt(peak_kib() - before_kib, KIB_MAX, "%s took %ld KiB", what,
                 peak_kib() - before_kib);
    scratch_finish(&scratch);
}

static void expect_refusal_of_repeated(const char *what, const char *text, size_t size,
                                       const char *code)
{
    size_t length = strlen(text);
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)text[i % length];
    }
    expect_refusal(what, bytes_make(data, size), code);
    free(data);
}

Test(hostile, h1_alias_bombs_are_refused)
{
    expect_refusal("billion laughs",
                   BYTES("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                         "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                         "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
                         "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n"
                         "i: &i [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n"),
                   "alias");
}

Test(hostile, h2_depth_is_refused)
{
    expect_refusal_of_repeated("1 MB of [", "[", 1000000, "too-deep");
    expect_refusal_of_repeated("100 kB of [", "[", 100000, "too-deep");
    expect_refusal_of_repeated("64,000 x {a: ", "{a: ", 256000, "too-deep");
}

Test(hostile, h3_duplicate_keys_are_refused)
{
    expect_refusal("duplicate key", BYTES("port: 1\nport: 2\n"), "duplicate-key");
}

Test(hostile, h4_sizes_are_refused)
{
    expect_refusal_of_repeated("2 MB scalar", "x", 2000000, "too-long");
    expect_refusal_of_repeated("9 MiB file", "# comment\n", 9 << 20, "file-too-large");
    static char key[5000];
    memset(key, 'k', sizeof(key));
    memcpy(key + sizeof(key) - 5, ": 1\n", 5);
    expect_refusal("5 kB key", bytes_from_string(key), "not-yaml");
}

Test(hostile, h4_a_million_nodes_stop_at_the_bound)
{
    /* Half a million nodes are allowed, and cost what they cost; what counts is that it ends there.
     */
    struct scratch scratch;
    scratch_init(&scratch);
    size_t size = 4 << 20;
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t) "- 1\n"[i % 4];
    }
    scratch_write_bytes(&scratch, "x.yaml", bytes_make(data, size));
    free(data);
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_not_null(scratch_find(&scratch, "too-many-nodes"));
    scratch_finish(&scratch);
}

Test(hostile, h5_nul_tags_merge_keys_and_bad_encoding_are_refused)
{
    expect_refusal("NUL escape", BYTES("host: \"a\\0b\"\n"), "nul-byte");
    expect_refusal("NUL byte", BYTES("host: a\0b\n"), "nul-byte");
    expect_refusal("tag", BYTES("a: !ruby/object {}\n"), "tag");
    expect_refusal("merge key", BYTES("<<: {a: b}\n"), "merge-key");
    expect_refusal("invalid UTF-8", BYTES("a: \xc3\x28\n"), "not-utf8");
    expect_refusal("UTF-16",
                   BYTES("\xff\xfe"
                         "a\0:\0 \0"
                         "1\0"),
                   "not-utf8");
    expect_refusal_of_repeated("directives", "%TAG !a! b\n", 4 << 20, "not-yaml");
}

Test(hostile, h6_numbers_are_decimal_and_truth_is_true)
{
    static const char *const ports[] = {"0x50", "0o17", "1e3", "80.0", "no",
                                        "'80'", "+80",  "~80", "8_0"};
    static const char *const far[] = {"65536", "-1", "0", "99999999999999999999"};
    char text[512];
    for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        snprintf(
            text, sizeof(text),
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: %s}]}\n",
            ports[i]);
        expect_refusal(ports[i], bytes_from_string(text), "wrong-type");
    }
    for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
        snprintf(
            text, sizeof(text),
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: %s}]}\n",
            far[i]);
        expect_refusal(far[i], bytes_from_string(text), "out-of-range");
    }
}

Test(hostile, h7_a_bad_file_refuses_all_and_names_every_mistake)
{
    struct scratch scratch;
    scratch_init(&scratch);
    scratch_write(&scratch, "a.yaml", SERVICE("a", "10.0.0.1"));
    scratch_write(&scratch, "b.yaml", HTTP_ROUTE("r", "a", "x") HTTP_ROUTE("s", "a", "y"));
    scratch_write(&scratch, "c.yaml", "[");
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_eq(scratch.diagnostics.errors_count, 3);
    cr_assert_null(scratch.config);
    scratch_write(&scratch, "b.yaml", HTTP_ROUTE("r", "a", "/x"));
    scratch_write(&scratch, "c.yaml", "");
    scratch_load(&scratch);
    cr_assert(!error_is(scratch.error));
    scratch_finish(&scratch);
}

Test(hostile, h8_only_regular_files_are_read)
{
    struct scratch scratch;
    scratch_init(&scratch);
    char path[256];
    snprintf(path, sizeof(path), "%s/fifo.yaml", scratch.directory);
    cr_assert_eq(mkfifo(path, 0600), 0);
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_not_null(scratch_find(&scratch, "file-not-regular"));
    unlink(path);

    snprintf(path, sizeof(path), "%s/sparse.yaml", scratch.directory);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, (off_t)1 << 40), 0);
    close(fd);
    double begin = cpu_ms();
    scratch_load(&scratch);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    cr_assert_not_null(scratch_find(&scratch, "file-too-large"));
    cr_assert_lt(cpu_ms() - begin, MS_MAX);
    unlink(path);

    cr_assert_eq(mkdir(path, 0700), 0);
    scratch_load(&scratch);
    rmdir(path);
    cr_assert_eq(scratch.error.code, ERROR_CONFIG);
    scratch_finish(&scratch);
}

/*
 * A configuration is a few files of documents, each document a text. Names are few, so that routes
 * meet on Services, kinds conflict, objects are there twice, and what a route refers to comes and
 * goes.
 */
#include "routes/reload_random.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/explain.h"
#include "routes/load.h"
#include "routes/table_random.h"

enum {
    FILES_MAX = 6,
    DOCUMENTS_MAX = 24, /* of a file */
    DOCUMENT_BYTES = 2048,
    NAME_BYTES = 32,
    PATH_BYTES = 128,
    DIFFERENCES_SHOWN = 3,
    /* After how many of a hundred refusals the last good state comes back. */
    TAKEN_BACK = 70,
};

struct document {
    char text[DOCUMENT_BYTES];
};

struct file {
    char name[NAME_BYTES];
    struct document documents[DOCUMENTS_MAX];
    uint32_t count;
    const char *line_end; /* "\n", seldom "\r\n" */
};

struct world {
    struct random_source random;
    char directory[64];
    const char *paths[1];
    struct file files[FILES_MAX];
    uint32_t files_count;
    struct route_load_options options;
    struct route_config *config; /* of the last step that was taken */
};

static uint32_t below(struct world *world, uint32_t bound)
{
    return random_below(&world->random, bound);
}

static bool chance(struct world *world, uint32_t percent)
{
    return below(world, 100) < percent;
}

static const char *pick(struct world *world, const char *const *words, uint32_t count)
{
    return words[below(world, count)];
}

#define PICK(world, ...)                                                                           \
    pick(world, (const char *const[]){__VA_ARGS__},                                                \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

/* ---- Documents ---- */

/* A document while it is written. */
struct text {
    char *data;
    size_t used;
};

static void say(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = DOCUMENT_BYTES - text->used;
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start is just above */
    int written = vsnprintf(text->data + text->used, room, format, arguments);
    va_end(arguments);
    CHECK(written >= 0 && text->used + (size_t)written < DOCUMENT_BYTES);
    text->used += (size_t)written;
}

static const char *pick_namespace(struct world *world)
{
    return PICK(world, "shop", "shop", "shop", "web", "pay");
}

static const char *pick_service(struct world *world)
{
    return PICK(world, "a", "b", "c", "d", "e", "f");
}

static void say_metadata(struct world *world, struct text *text, const char *namespace,
                         const char *name)
{
    say(text, "metadata:\n  name: %s\n", name);
    if (namespace != NULL) {
        say(text, "  namespace: %s\n", namespace);
    }
    if (chance(world, 40)) {
        say(text, "  creationTimestamp: \"2024-05-0%uT12:00:00Z\"\n", 1 + below(world, 4));
    }
    if (chance(world, 20)) {
        say(text, "  resourceVersion: \"%u\"\n", below(world, 9));
    }
    if (chance(world, 15)) {
        say(text, "  annotations: {note: %s}\n", PICK(world, "a", "b", "c", "\"1\"", "1"));
    }
    if (chance(world, 4)) {
        say(text, "  %s: {}\n", PICK(world, "lables", "anotations"));
    }
}

static void write_service(struct world *world, struct text *text)
{
    say(text, "apiVersion: v1\nkind: Service\n");
    say_metadata(world, text, pick_namespace(world), pick_service(world));
    if (chance(world, 8)) {
        say(text, "spec: {type: ExternalName, externalName: example.org}\n");
        return;
    }
    say(text, "spec:\n");
    if (chance(world, 90)) {
        say(text, "  clusterIP: %s\n",
            PICK(world, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6",
                 "10.0.0.7", "fd00::1", "None"));
    }
    if (chance(world, 10)) {
        say(text, "  sessionAffinity: ClientIP\n");
    }
    say(text, "  ports:\n");
    uint32_t first = chance(world, 80) ? 80 : 81;
    say(text, "  - {name: %s, port: %u, targetPort: 8080}\n",
        PICK(world, "http", "http", "web", "tcp-x", "grpc"), first);
    if (chance(world, 50)) {
        say(text, "  - {name: second, port: %u, targetPort: 9090%s}\n", 90 + below(world, 2),
            PICK(world, "", ", appProtocol: http", ", appProtocol: tcp"));
    }
    if (chance(world, 30)) {
        say(text, "  - {name: third, port: 443, appProtocol: %s}\n",
            PICK(world, "kubernetes.io/wss", "kubernetes.io/ws", "https", "kubernetes.io/h2c"));
    }
    if (chance(world, 25)) {
        say(text, "  - {name: dns, port: 53, protocol: UDP}\n");
    }
}

static void write_slice(struct world *world, struct text *text)
{
    say(text,
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: slice-%u\n"
        "  namespace: %s\n  labels: {kubernetes.io/service-name: %s}\n",
        below(world, 5), pick_namespace(world), pick_service(world));
    say(text, "addressType: IPv4\nports:\n- {name: %s, port: %u}\n",
        PICK(world, "http", "second", "web"), chance(world, 80) ? 8080 : 9090);
    uint32_t count = below(world, 4);
    say(text, "endpoints:%s\n", count == 0 ? " []" : "");
    for (uint32_t i = 0; i < count; i++) {
        say(text, "- addresses: [%s]\n  conditions: {ready: %s}\n",
            PICK(world, "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "not-an-address"),
            chance(world, 80) ? "true" : "false");
        if (chance(world, 40)) {
            say(text, "  targetRef: {kind: Pod, name: pod-%u}\n", below(world, 3));
        }
    }
}

static void say_backend(struct world *world, struct text *text, const char *indent)
{
    say(text, "%s- name: %s\n", indent, pick_service(world));
    if (chance(world, 92)) {
        say(text, "%s  port: %s\n", indent, PICK(world, "80", "80", "80", "81", "90", "443", "53"));
    } else {
        say(text, "%s  kind: %s\n%s  group: x.example\n", indent, PICK(world, "Service", "Other"),
            indent);
    }
    if (chance(world, 40)) {
        say(text, "%s  namespace: %s\n", indent, pick_namespace(world));
    }
    if (chance(world, 30)) {
        say(text, "%s  weight: %u\n", indent, below(world, 3));
    }
}

static void say_filter(struct world *world, struct text *text, const char *indent)
{
    switch (below(world, 6)) {
    case 0:
        say(text, "%s- {type: RequestMirror, requestMirror: {backendRef: {name: %s, port: 80}}}\n",
            indent, pick_service(world));
        break;
    case 1:
        say(text,
            "%s- {type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: %s, name: %s}}\n",
            indent, chance(world, 85) ? "BodyMatch" : "Thing", PICK(world, "gold", "silver"));
        break;
    case 2:
        say(text,
            "%s- {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, "
            "value: \"%u\"}]}}\n",
            indent, below(world, 3));
        break;
    case 3:
        say(text,
            "%s- {type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: %s, port: "
            "80}, grpc: {}}}\n",
            indent, pick_service(world));
        break;
    case 4:
        say(text,
            "%s- {type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, "
            "replaceFullPath: /r%u}}}\n",
            indent, below(world, 3));
        break;
    default:
        say(text, "%s- {type: %s}\n", indent, PICK(world, "FromTheFuture", "Later"));
        break;
    }
}

static void say_http_match(struct world *world, struct text *text)
{
    switch (below(world, 8)) {
    case 0:
        say(text, "    - {path: {type: Exact, value: /e%u}}\n", below(world, 4));
        break;
    case 1:
        say(text, "    - {path: {type: RegularExpression, value: \"/r%s\"}}\n",
            PICK(world, "[0-9]+", ".*", "(x", "a|b"));
        break;
    case 2:
        say(text, "    - {method: GET, headers: [{name: X-%u, value: v}]}\n", below(world, 2));
        break;
    case 3:
        say(text, "    - {queryParams: [{name: q, value: \"%u\"}]}\n", below(world, 3));
        break;
    case 4:
        say(text, "    - {path: {type: %s, value: /x}}\n", PICK(world, "Newer", "PathPrefix"));
        break;
    default:
        say(text, "    - {path: {type: PathPrefix, value: %s%u}}\n",
            chance(world, 97) ? "/p" : "wrong", below(world, 4));
        break;
    }
}

static void say_rule(struct world *world, struct text *text, const char *kind)
{
    bool is_http = strcmp(kind, "HTTPRoute") == 0;
    bool is_grpc = strcmp(kind, "GRPCRoute") == 0;
    say(text, "  - name: rule-%u\n", below(world, 1000));
    uint32_t backends = is_http && chance(world, 15) ? 0 : 1 + below(world, 2);
    if (is_http && chance(world, 80)) {
        say(text, "    matches:\n");
        for (uint32_t i = 0; i <= below(world, 2); i++) {
            say_http_match(world, text);
        }
    } else if (is_grpc) {
        say(text, "    matches: [{method: {service: s%u, method: m}}]\n", below(world, 3));
    }
    if ((is_http || is_grpc) && chance(world, 30)) {
        say(text, "    filters:\n");
        say_filter(world, text, "    ");
    }
    if (is_http && chance(world, 8)) {
        say(text, "    sessionPersistence: {sessionName: s, type: Cookie}\n");
    }
    if (chance(world, 4)) {
        say(text, "    backendRefz: []\n"); /* a warning */
    }
    say(text, "    backendRefs:%s\n", backends == 0 ? " []" : "");
    for (uint32_t i = 0; i < backends; i++) {
        say_backend(world, text, "    ");
        if ((is_http || is_grpc) && chance(world, 10)) {
            say(text, "      filters:\n");
            say_filter(world, text, "      ");
        }
    }
}

static void say_parent(struct world *world, struct text *text)
{
    if (chance(world, 5)) {
        say(text, "  - {kind: Gateway, name: edge}\n");
        return;
    }
    say(text, "  - kind: %s\n    name: %s\n", chance(world, 96) ? "Service" : "Thing",
        pick_service(world));
    if (chance(world, 92)) {
        say(text, "    group: %s\n",
            PICK(world, "\"\"", "\"\"", "\"\"", "\"\"", "core", "other.io"));
    }
    if (chance(world, 25)) {
        say(text, "    namespace: %s\n", pick_namespace(world));
    }
    if (chance(world, 40)) {
        say(text, "    port: %s\n", PICK(world, "80", "80", "81", "90", "443", "53"));
    } else if (chance(world, 15)) {
        say(text, "    sectionName: %s\n", PICK(world, "http", "second", "web"));
    }
}

static void write_route(struct world *world, struct text *text)
{
    const char *kind = PICK(world, "HTTPRoute", "HTTPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute",
                            "TLSRoute", "TCPRoute", "UDPRoute");
    bool is_http = strcmp(kind, "HTTPRoute") == 0;
    bool is_alpha = strcmp(kind, "TCPRoute") == 0 || strcmp(kind, "UDPRoute") == 0 ||
                    strcmp(kind, "TLSRoute") == 0;
    char name[NAME_BYTES];
    snprintf(name, sizeof(name), "r%u", below(world, 12));
    say(text, "apiVersion: gateway.networking.k8s.io/%s\nkind: %s\n", is_alpha ? "v1alpha2" : "v1",
        kind);
    say_metadata(world, text, pick_namespace(world), name);
    say(text, "spec:\n  parentRefs:\n");
    uint32_t parents = 1 + (chance(world, 25) ? 1 : 0);
    for (uint32_t i = 0; i < parents; i++) {
        say_parent(world, text);
    }
    if (strcmp(kind, "TLSRoute") == 0) {
        say(text, "  hostnames: [h%u.example]\n", below(world, 3));
    } else if (is_http && chance(world, 10)) {
        say(text, "  hostnames: [ignored.example]\n");
    }
    say(text, "  rules:\n");
    uint32_t rules = is_alpha ? 1 : 1 + below(world, 2);
    for (uint32_t i = 0; i < rules; i++) {
        say_rule(world, text, kind);
    }
    if (chance(world, 20)) {
        say(text, "status: {parents: [], observed: %u}\n", below(world, 9));
    }
}

static void write_grant(struct world *world, struct text *text)
{
    say(text,
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: "
        "g%u, namespace: %s}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: %s, "
        "namespace: %s}]\n  to: [{group: \"\", kind: Service%s}]\n",
        below(world, 3), PICK(world, "web", "pay", "shop"),
        PICK(world, "HTTPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute", "TCPRoute"),
        pick_namespace(world), PICK(world, "", ", name: a", ", name: b", ", name: c"));
}

static void write_policy(struct world *world, struct text *text)
{
    const char *namespace = pick_namespace(world);
    switch (below(world, 7)) {
    case 0:
    case 1:
        say(text,
            "apiVersion: outrigger.dev/v1alpha1\nkind: BodyMatch\nmetadata: {name: %s, namespace: "
            "%s}\nspec: {maxBytes: %u, matches: [{form: [{name: tier, value: gold}]}]}\n",
            PICK(world, "gold", "silver"), namespace, 1000 + below(world, 3));
        break;
    case 2:
    case 3:
        say(text,
            "apiVersion: gateway.networking.k8s.io/v1alpha3\nkind: BackendTLSPolicy\nmetadata: "
            "{name: t%u, namespace: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: "
            "%s%s}]\n  validation: {hostname: x.example, wellKnownCACertificates: System}\n",
            below(world, 2), namespace, pick_service(world),
            chance(world, 50) ? ", sectionName: third" : "");
        break;
    case 4:
        say(text,
            "apiVersion: outrigger.dev/v1alpha1\nkind: MeshTLSPolicy\nmetadata: {name: m%u, "
            "namespace: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Pod, selector: {}}]\n  "
            "inbound: {mode: %s}\n",
            below(world, 2), namespace, chance(world, 90) ? "Permissive" : "Strict");
        break;
    case 5:
        say(text,
            "apiVersion: outrigger.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p%u, "
            "namespace: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Pod, selector: {}}]\n  "
            "action: ALLOW\n  mode: %s\n",
            below(world, 2), namespace, chance(world, 90) ? "Audit" : "Enforce");
        break;
    default:
        say(text,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%u, namespace: %s}\ndata: "
            "{ca.crt: \"%u\"}\n",
            below(world, 2), namespace, below(world, 4));
        break;
    }
}

/* What is no object of ours, or no object, or no YAML. */
static void write_odd(struct world *world, struct text *text)
{
    say(text, "%s",
        PICK(
            world, "# only a comment\n", "", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n",
            "apiVersion: outrigger.dev/v1alpha1\nkind: BodyMach\nmetadata: {name: x}\n",
            "kind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: "
            "{name: listed, namespace: shop}\n  spec: {clusterIP: 10.0.9.9, ports: [{port: 80}]}\n",
            "null\n", "# caf\303\251\n",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\ndata:\n  a: |\n    one\n    "
            "--- two\n  b: \"x\n    y\"\n",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: last}\ndata:\n  ? a\n"));
    if (chance(world, 8)) {
        say(text, "%s",
            PICK(world, "a: [\n", "key: {x: 1, x: 2}\n", "- 1\n", "a: &x 1\n", "a: \"\n",
                 "apiVersion: v1\nkind: Service\nmetadata: {}\n"));
    } else if (chance(world, 8)) {
        say(text, "%s",
            PICK(world, "...\n", "...\n%YAML 1.1\n", "# \342\200\250---\n", "...\n# between\n"));
    }
}

static void write_document(struct world *world, struct document *document)
{
    struct text text = {.data = document->text};
    uint32_t kind = below(world, 100);
    if (kind < 25) {
        write_service(world, &text);
    } else if (kind < 66) {
        write_route(world, &text);
    } else if (kind < 73) {
        write_slice(world, &text);
    } else if (kind < 85) {
        write_grant(world, &text);
    } else if (kind < 95) {
        write_policy(world, &text);
    } else {
        write_odd(world, &text);
    }
    if (text.used == 0) {
        text.data[0] = '\0';
    }
}

/* ---- Edits ---- */

static struct file *any_file(struct world *world)
{
    return &world->files[below(world, world->files_count)];
}

static void insert_document(struct world *world, struct file *file, const struct document *document)
{
    if (file->count == DOCUMENTS_MAX) {
        return;
    }
    uint32_t at = below(world, file->count + 1);
    memmove(&file->documents[at + 1], &file->documents[at],
            (file->count - at) * sizeof(file->documents[0]));
    file->documents[at] = *document;
    file->count++;
}

static void remove_document(struct file *file, uint32_t at)
{
    file->count--;
    memmove(&file->documents[at], &file->documents[at + 1],
            (file->count - at) * sizeof(file->documents[0]));
}

static void add_file(struct world *world)
{
    if (world->files_count == FILES_MAX) {
        return;
    }
    struct file *file = &world->files[world->files_count++];
    *file = (struct file){.line_end = chance(world, 95) ? "\n" : "\r\n"};
    snprintf(file->name, sizeof(file->name), "%06" PRIx64 ".yaml",
             random_next(&world->random) & 0xffffff);
}

/* Another digit somewhere: a weight, a port, a name, an address, a date. */
static void change_digit(struct world *world, struct document *document)
{
    uint32_t digits = 0;
    for (char *at = document->text; *at != '\0'; at++) {
        digits += *at >= '0' && *at <= '9';
    }
    uint32_t chosen = digits == 0 ? 0 : below(world, digits);
    for (char *at = document->text; *at != '\0' && digits > 0; at++) {
        if (*at >= '0' && *at <= '9' && chosen-- == 0) {
            *at = (char)('0' + below(world, 10));
            return;
        }
    }
}

static void change_options(struct world *world)
{
    switch (below(world, 4)) {
    case 0:
        world->options.namespace = bytes_from_string(PICK(world, "shop", "web", "pay"));
        if (chance(world, 30)) {
            world->options.namespace = (struct bytes){0};
        }
        break;
    case 1:
        world->options.require_reference_grants = !world->options.require_reference_grants;
        break;
    case 2:
        world->options.skip_invalid_objects = !world->options.skip_invalid_objects;
        break;
    default:
        world->options.can_udp = !world->options.can_udp;
        break;
    }
}

static void move_document(struct world *world, struct file *from)
{
    if (from->count == 0) {
        return;
    }
    uint32_t at = below(world, from->count);
    struct document document = from->documents[at];
    if (chance(world, 75)) { /* else it is there twice, and counts once */
        remove_document(from, at);
    }
    insert_document(world, any_file(world), &document);
}

static void edit(struct world *world)
{
    struct document document;
    struct file *file = any_file(world);
    switch (below(world, 12)) {
    case 0:
    case 1:
    case 2:
        write_document(world, &document);
        insert_document(world, file, &document);
        break;
    case 3:
        if (file->count > 4) {
            remove_document(file, below(world, file->count));
        }
        break;
    case 4:
        move_document(world, file);
        break;
    case 5:
    case 6:
    case 7:
        if (file->count > 0) {
            change_digit(world, &file->documents[below(world, file->count)]);
        }
        break;
    case 8:
        if (file->count > 0) {
            write_document(world, &file->documents[below(world, file->count)]);
        }
        break;
    case 9:
        change_options(world);
        break;
    case 10:
        add_file(world);
        break;
    default:
        if (chance(world, 50) && world->files_count > 2) {
            *file = world->files[--world->files_count];
        } else {
            snprintf(file->name, sizeof(file->name), "%06" PRIx64 ".yaml",
                     random_next(&world->random) & 0xffffff);
        }
        break;
    }
}

/* ---- Files ---- */

static void path_of(const struct world *world, const struct file *file, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", world->directory, file->name);
}

static void write_file(const struct world *world, const struct file *file)
{
    char path[PATH_BYTES];
    path_of(world, file, path);
    FILE *stream = fopen(path, "we");
    CHECK(stream != NULL);
    for (uint32_t i = 0; i < file->count; i++) {
        if (i > 0 || file->count % 2 == 0) {
            (void)fprintf(stream, "---%s", file->line_end);
        }
        for (const char *at = file->documents[i].text; *at != '\0'; at++) {
            (void)fputs(*at == '\n' ? file->line_end : (const char[]){*at, '\0'}, stream);
        }
    }
    CHECK(fclose(stream) == 0);
}

static void write_files(const struct world *world)
{
    for (uint32_t i = 0; i < world->files_count; i++) {
        write_file(world, &world->files[i]);
    }
}

static void unlink_files(const struct world *world)
{
    for (uint32_t i = 0; i < world->files_count; i++) {
        char path[PATH_BYTES];
        path_of(world, &world->files[i], path);
        (void)unlink(path);
    }
}

/* ---- All that a configuration says, as text ---- */

static void print_bytes(FILE *out, struct bytes bytes)
{
    (void)fprintf(out, " %.*s", (int)bytes.size, bytes.data == NULL ? "" : (char *)bytes.data);
}

static void print_place(FILE *out, struct route_position position)
{
    (void)fprintf(out, " %s:%u:%u", position.file, position.line, position.column);
}

static void print_diagnostics(FILE *out, const struct route_diagnostics *diagnostics)
{
    (void)fprintf(out, "errors %u warnings %u\n", diagnostics->errors_count,
                  diagnostics->warnings_count);
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        const struct route_diagnostic *item = &diagnostics->items[i];
        print_place(out, item->position);
        (void)fprintf(out, " %d %s: %s (%s)\n", (int)item->severity, item->code, item->message,
                      item->suggestion == NULL ? "" : item->suggestion);
    }
}

static void print_conditions(FILE *out, const struct route_config *config, uint32_t place)
{
    uint32_t count = 0;
    const struct route_condition *conditions = route_config_conditions(config, place, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct route_condition *condition = &conditions[i];
        print_bytes(out, condition->object->name);
        print_bytes(out, condition->parent);
        print_place(out, condition->position);
        (void)fprintf(out, " %s %d %s %s\n", condition->type, condition->status, condition->reason,
                      condition->message);
    }
}

static void print_objects(FILE *out, const struct route_config *config)
{
    uint32_t count = 0;
    const struct route_object *const *objects = route_config_objects(config, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct route_object *object = objects[i];
        (void)fprintf(out, "%s", route_kind_name(object->kind));
        print_bytes(out, object->namespace);
        print_bytes(out, object->name);
        print_place(out, object->position);
        (void)fprintf(out, " found %d\n",
                      route_config_find(config, object->kind, object->namespace, object->name) ==
                          object);
        print_conditions(out, config, i);
    }
}

static void print_rule(FILE *out, const struct route_table_rule *rule)
{
    print_bytes(out, rule->route_name);
    print_bytes(out, rule->rule_name);
    (void)fprintf(out, " fault %d filters %u sum %" PRIu64, (int)rule->fault, rule->filters_count,
                  rule->weights_sum);
    print_place(out, rule->source->position);
    for (uint32_t i = 0; i < rule->backends_count; i++) {
        print_bytes(out, rule->backends[i].reference);
        (void)fprintf(out, "=%u/%d/%u", rule->backends[i].weight, (int)rule->backends[i].fault,
                      rule->backends[i].filters_count);
    }
    (void)fprintf(out, "\n");
}

static void print_rules(FILE *out, const struct route_rules *rules)
{
    struct arena arena;
    arena_init(&arena, 4096, 1 << 20);
    (void)fprintf(out, " kind %d set %d\n", (int)route_rules_kind(rules),
                  (int)route_rules_set(rules));
    for (uint32_t i = 0; i < route_rules_count(rules); i++) {
        print_rule(out, route_rules_at(rules, i));
    }
    for (uint32_t i = 0; i < route_rules_matches_count(rules); i++) {
        struct route_listing listing;
        route_rules_match_at(rules, i, &arena, &listing);
        print_bytes(out, listing.rule->route_name);
        print_place(out, *listing.position);
        (void)fprintf(out, " match %u %s\n", listing.match_index, listing.when);
    }
    arena_finish(&arena);
}

static void print_ip(FILE *out, const struct route_ip *ip)
{
    (void)fprintf(out, " %u", ip->family);
    for (uint32_t i = 0; i < 16; i++) {
        (void)fprintf(out, ".%u", ip->bytes[i]);
    }
}

/* An address that somebody dials: whose it is. */
static void print_owners(FILE *out, const struct route_services *services,
                         const struct route_ip *ip, uint16_t number)
{
    struct route_endpoint_owner owners[8];
    uint32_t count = route_services_find_endpoint(services, ip, number, owners, 8);
    (void)fprintf(out, "  owners %u", count);
    for (uint32_t i = 0; i < count && i < 8; i++) {
        print_bytes(out, owners[i].port->service->reference);
        (void)fprintf(out, ":%u", owners[i].port->source->port);
    }
    (void)fprintf(out, "\n");
}

static void print_port(FILE *out, const struct route_services *services,
                       const struct route_port *port)
{
    (void)fprintf(out, " port %u protocol %d endpoints %u of", port->source->port,
                  (int)port->protocol, port->endpoints_count);
    print_bytes(out, port->service->reference);
    (void)fprintf(out, "\n");
    for (uint32_t i = 0; i < port->endpoints_count; i++) {
        const struct route_endpoint *endpoint = &port->endpoints[i];
        print_bytes(out, endpoint->pod);
        print_ip(out, &endpoint->addresses[0]);
        (void)fprintf(out, " %u\n", endpoint->port);
        print_owners(out, services, &endpoint->addresses[0], endpoint->port);
    }
    if (port->rules != NULL) {
        print_rules(out, port->rules);
    }
}

static void print_services(FILE *out, const struct route_services *services)
{
    for (uint32_t i = 0; i < route_services_count(services); i++) {
        const struct route_service *service = route_services_at(services, i);
        const struct route_object *object = &service->object->object;
        print_bytes(out, service->reference);
        print_place(out, object->position);
        (void)fprintf(out, " slices %d found %d\n", service->has_slices,
                      route_services_find(services, object->namespace, object->name) == service);
        for (uint32_t a = 0; a < service->cluster_ips_count; a++) {
            const struct route_ip *ip = &service->cluster_ips[a];
            print_ip(out, ip);
            print_bytes(out, route_services_find_ip(services, ip)->reference);
            for (uint32_t p = 0; p < service->ports_count; p++) {
                const struct route_service_port *port = service->ports[p].source;
                const struct route_port *found =
                    route_services_find_address(services, ip, port->port, port->transport);
                (void)fprintf(out, " %u is", port->port);
                print_bytes(out, found->service->reference);
            }
            (void)fprintf(out, "\n");
        }
        for (uint32_t p = 0; p < service->ports_count; p++) {
            print_port(out, services, &service->ports[p]);
        }
    }
}

/* What both loads must agree on; to be freed. */
static char *describe(struct error error, const char *hash,
                      const struct route_diagnostics *diagnostics,
                      const struct route_config *config)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(out != NULL);
    (void)fprintf(out, "error %d hash %s\n", (int)error.code, hash);
    print_diagnostics(out, diagnostics);
    if (config != NULL) {
        struct route_load_stats stats = route_config_stats(config);
        (void)fprintf(out, "hash %s files %u bytes %" PRIu64 " objects %u tables %u\n",
                      route_config_hash(config), stats.files, stats.bytes, stats.objects,
                      stats.tables);
        print_objects(out, config);
        print_services(out, route_config_services(config));
    }
    CHECK(fclose(out) == 0);
    return text;
}

/* ---- Steps ---- */

static char *load(struct world *world, const struct route_config *previous,
                  struct route_config **ret_config)
{
    char hash[ROUTE_CONFIG_HASH_BYTES] = "";
    struct route_diagnostics diagnostics;
    struct route_load_options options = world->options;
    options.ret_hash = hash;
    options.paths = world->paths;
    options.paths_count = 1;
    route_diagnostics_init(&diagnostics);
    struct error error = route_config_load(&options, previous, &diagnostics, ret_config);
    char *text = describe(error, hash, &diagnostics, *ret_config);
    route_diagnostics_finish(&diagnostics);
    return text;
}

static void show_difference(uint64_t seed, uint64_t step, const char *again, const char *fresh)
{
    const char *line = fresh;
    size_t at = 0;
    while (again[at] != '\0' && again[at] == fresh[at]) {
        at++;
        line = fresh[at - 1] == '\n' ? fresh + at : line;
    }
    size_t begin = (size_t)(line - fresh);
    (void)fprintf(stderr,
                  "difference: seed %" PRIu64 ", step %" PRIu64 "\nfrom nothing: %.*s\non top:  "
                  "     %.*s\n",
                  seed, step, (int)strcspn(fresh + begin, "\n"), fresh + begin,
                  (int)strcspn(again + begin, "\n"), again + begin);
}

static void count_shared(const struct route_config *config, struct reload_report *report)
{
    struct route_load_stats stats = route_config_stats(config);
    report->files_shared += stats.files - stats.files_parsed;
    report->tables_shared += stats.tables - stats.tables_compiled;
    report->objects_shared +=
        stats.objects > stats.objects_decoded ? stats.objects - stats.objects_decoded : 0;
}

/* Returns whether the configuration was taken. */
static bool step(struct world *world, uint64_t seed, struct reload_report *report)
{
    struct route_config *next = NULL;
    struct route_config *fresh = NULL;
    write_files(world);
    char *of_next = load(world, world->config, &next);
    char *of_fresh = load(world, NULL, &fresh);
    if (strcmp(of_next, of_fresh) != 0 && report->differences++ < DIFFERENCES_SHOWN) {
        show_difference(seed, report->steps, of_next, of_fresh);
    }
    free(of_next);
    free(of_fresh);
    unlink_files(world);
    report->steps++;
    bool is_taken = next != NULL;
    if (is_taken) {
        /* What the next one shares must outlive this one. */
        route_config_unref(world->config);
        world->config = next;
        report->taken++;
        count_shared(next, report);
    } else {
        report->refused++;
    }
    route_config_unref(fresh);
    return is_taken;
}

/* The state to come back to: the last that was taken. */
struct refuge {
    struct file files[FILES_MAX];
    uint32_t files_count;
    struct route_load_options options;
};

static void copy_state(struct refuge *to, const struct world *from)
{
    memcpy(to->files, from->files, sizeof(to->files));
    to->files_count = from->files_count;
    to->options = from->options;
}

static void return_to(struct world *world, const struct refuge *refuge)
{
    memcpy(world->files, refuge->files, sizeof(world->files));
    world->files_count = refuge->files_count;
    world->options = refuge->options;
}

static struct world *world_create(uint64_t seed)
{
    struct world *world = calloc(1, sizeof(*world));
    CHECK(world != NULL);
    world->random.state = seed;
    snprintf(world->directory, sizeof(world->directory), "/tmp/outrigger-reload-XXXXXX");
    CHECK(mkdtemp(world->directory) != NULL);
    world->paths[0] = world->directory;
    world->options.require_reference_grants = chance(world, 70);
    for (uint32_t i = 0; i < 3; i++) {
        add_file(world);
    }
    return world;
}

struct reload_report reload_compare(uint64_t seed, uint32_t steps)
{
    struct reload_report report = {0};
    struct world *world = world_create(seed);
    struct refuge *refuge = calloc(1, sizeof(*refuge));
    CHECK(refuge != NULL);
    copy_state(refuge, world);
    for (uint32_t i = 0; i < steps; i++) {
        for (uint32_t edits = 1 + below(world, 3); edits > 0; edits--) {
            edit(world);
        }
        if (step(world, seed, &report)) {
            copy_state(refuge, world);
        } else if (chance(world, TAKEN_BACK)) {
            return_to(world, refuge);
        }
    }
    route_config_unref(world->config);
    (void)rmdir(world->directory);
    free(refuge);
    free(world);
    return report;
}

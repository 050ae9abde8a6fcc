/* The decoder: a walk of the node tree beside the tables, which fills structs at the tables'
 * offsets. */
#include "routes/decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "routes/decode_scalar.h"

enum {
    PATH_BYTES_MAX = 256,
    /* What an object is likely to need in its arena: measured, most have room to spare. */
    OBJECT_BYTES_FIXED = 176,
    OBJECT_BYTES_PER_NODE = 32,
    OBJECT_BYTES_FIRST_MAX = 1 << 20,
};

/* ---- Messages ---- */

struct route_position route_decode_place(const struct route_decoder *decoder,
                                         const struct route_node *node)
{
    return (struct route_position){decoder->object->position.file, node->line, node->column};
}

/* "spec.rules[0].name", cut when it is too long. */
static void print_path(const struct route_decoder *decoder, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < decoder->depth && used < size; i++) {
        const struct route_path_step *step = &decoder->path[i];
        int written = 0;
        if (step->name == NULL) {
            written = snprintf(out + used, size - used, "[%u]", step->index);
        } else {
            written = snprintf(out + used, size - used, "%s%s", used == 0 ? "" : ".", step->name);
        }
        used += written < 0 ? size : (size_t)written;
    }
}

void route_decode_report(struct route_decoder *decoder, enum route_severity severity,
                         struct route_position position, const char *code, const char *suggestion,
                         const char *message)
{
    char path[PATH_BYTES_MAX];
    print_path(decoder, path, sizeof(path));
    if (severity == ROUTE_SEVERITY_ERROR) {
        decoder->errors_count++;
    }
    route_diagnostics_add(decoder->diagnostics, severity, position, code, suggestion, "%s%s%s",
                          path, path[0] == '\0' ? "" : ": ", message);
}

void route_decode_fail(struct route_decoder *decoder, const struct route_node *node,
                       const char *code, const char *format, ...)
{
    char message[ROUTE_DECODE_MESSAGE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    struct route_position position = decoder->object->position;
    if (node != NULL) {
        position = route_decode_place(decoder, node);
    }
    route_decode_report(decoder, ROUTE_SEVERITY_ERROR, position, code, NULL, message);
}

void route_decode_warn(struct route_decoder *decoder, const struct route_node *node,
                       const char *code, const char *suggestion, const char *format, ...)
{
    char message[ROUTE_DECODE_MESSAGE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    route_decode_report(decoder, ROUTE_SEVERITY_WARNING, route_decode_place(decoder, node), code,
                        suggestion, message);
}

void *route_decode_alloc(struct route_decoder *decoder, size_t count, size_t size)
{
    void *memory = arena_alloc_zero(decoder->arena, count, size);
    if (memory == NULL) {
        decoder->is_out_of_memory = true;
    }
    return memory;
}

/* The text of a scalar for a message; collections by what they are. */
const char *route_decode_describe(const struct route_node *node)
{
    if (node->type == ROUTE_NODE_SEQUENCE) {
        return "a list";
    }
    return node->type == ROUTE_NODE_MAPPING ? "a mapping" : node->text;
}

/* ---- Lists of scalars ---- */

/* Is it a list within the bounds of the field? */
static bool check_list(struct route_decoder *decoder, const struct route_field *field,
                       const struct route_node *node)
{
    if (node->type != ROUTE_NODE_SEQUENCE) {
        route_decode_fail(decoder, node, "wrong-type", "must be a list, not %s",
                          route_decode_describe(node));
        return false;
    }
    if (node->count < field->min) {
        route_decode_fail(decoder, node, "too-few", "must have at least %lld, not %u",
                          (long long)field->min, node->count);
        return false;
    }
    if (field->max > 0 && node->count > field->max) {
        route_decode_fail(decoder, node, "too-many", "must have at most %lld, not %u",
                          (long long)field->max, node->count);
        return false;
    }
    return true;
}

static void push(struct route_decoder *decoder, const char *name, uint32_t index)
{
    CHECK(decoder->depth < ROUTE_DECODE_DEPTH_MAX); /* the tables nest less deep */
    decoder->path[decoder->depth++] = (struct route_path_step){name, index};
}

static void pop(struct route_decoder *decoder)
{
    decoder->depth--;
}

/* Each item once: for lists that Kubernetes treats as sets. */
static void check_set(struct route_decoder *decoder, const struct route_node *node)
{
    for (const struct route_node *a = node->first; a != NULL; a = a->next) {
        for (const struct route_node *b = node->first; b != a; b = b->next) {
            if (a->type == ROUTE_NODE_SCALAR && b->type == ROUTE_NODE_SCALAR &&
                bytes_equal(route_node_text(a), route_node_text(b))) {
                route_decode_fail(decoder, a, "duplicate-item", "\"%s\" stands here twice",
                                  a->text);
                return;
            }
        }
    }
}

/* Write pointer and count of a list into the struct. */
static void write_list(void *object, const struct route_field *field, const void *items,
                       uint32_t count)
{
    memcpy((uint8_t *)object + field->offset, &items, sizeof(items));
    memcpy((uint8_t *)object + field->count_offset, &count, sizeof(count));
}

static void decode_strings(struct route_decoder *decoder, const struct route_field *field,
                           const struct route_node *node, void *object)
{
    if (!check_list(decoder, field, node)) {
        return;
    }
    struct bytes *items = route_decode_alloc(decoder, node->count, sizeof(*items));
    if (items == NULL) {
        return;
    }
    uint32_t count = 0;
    for (const struct route_node *item = node->first; item != NULL; item = item->next) {
        push(decoder, NULL, count);
        items[count++] =
            route_decode_take_text(decoder, field, item, field->item_min, field->item_max);
        pop(decoder);
    }
    if (field->is_set) {
        check_set(decoder, node);
    }
    write_list(object, field, items, count);
}

static void decode_ints(struct route_decoder *decoder, const struct route_field *field,
                        const struct route_node *node, void *object)
{
    if (!check_list(decoder, field, node)) {
        return;
    }
    uint8_t *items = route_decode_alloc(decoder, node->count, field->width);
    if (items == NULL) {
        return;
    }
    uint32_t count = 0;
    for (const struct route_node *item = node->first; item != NULL; item = item->next) {
        uint64_t value = 0;
        push(decoder, NULL, count);
        if (route_decode_read_number(decoder, item, field->item_min, field->item_max, &value)) {
            route_decode_write_number(items + (size_t)count * field->width, field, value);
        }
        pop(decoder);
        count++;
    }
    if (field->is_set) {
        check_set(decoder, node);
    }
    write_list(object, field, items, count);
}

static void decode_map(struct route_decoder *decoder, const struct route_field *field,
                       const struct route_node *node, void *object)
{
    if (node->type != ROUTE_NODE_MAPPING) {
        route_decode_fail(decoder, node, "wrong-type", "must be a mapping, not %s",
                          route_decode_describe(node));
        return;
    }
    struct route_label *labels = route_decode_alloc(decoder, node->count, sizeof(*labels));
    if (labels == NULL) {
        return;
    }
    uint32_t count = 0;
    for (const struct route_node *item = node->first; item != NULL; item = item->next) {
        push(decoder, item->key, 0);
        struct route_label *label = &labels[count++];
        label->key = arena_copy(decoder->arena, bytes_make(item->key, item->key_bytes));
        decoder->is_out_of_memory = decoder->is_out_of_memory || label->key.data == NULL;
        if (field->type == ROUTE_FIELD_MAP) {
            label->value = route_decode_take_text(decoder, field, item, 0, 0);
        }
        pop(decoder);
    }
    write_list(object, field, labels, count);
}

/* ---- Structs ---- */

static void decode_struct(struct route_decoder *decoder, const struct route_type *type,
                          const struct route_node *node, void *object);

/* In lists that Kubernetes keys by a field, each item has its own. */
static void check_list_keys(struct route_decoder *decoder, const struct route_field *field,
                            const struct route_node *node)
{
    for (const struct route_node *a = node->first; a != NULL; a = a->next) {
        const struct route_node *key = route_node_find(a, field->key);
        if (key == NULL || key->type != ROUTE_NODE_SCALAR) {
            continue;
        }
        for (const struct route_node *b = node->first; b != a; b = b->next) {
            const struct route_node *other = route_node_find(b, field->key);
            if (other != NULL && bytes_equal(route_node_text(key), route_node_text(other))) {
                route_decode_fail(decoder, key, "duplicate-item", "%s \"%s\" stands here twice",
                                  field->key, key->text);
                return;
            }
        }
    }
}

static void decode_list(struct route_decoder *decoder, const struct route_field *field,
                        const struct route_node *node, void *object)
{
    if (!check_list(decoder, field, node)) {
        return;
    }
    uint8_t *items = route_decode_alloc(decoder, node->count, field->of->size);
    if (items == NULL) {
        return;
    }
    uint32_t count = 0;
    for (const struct route_node *item = node->first; item != NULL; item = item->next) {
        push(decoder, NULL, count);
        decode_struct(decoder, field->of, item, items + (size_t)count * field->of->size);
        pop(decoder);
        count++;
    }
    if (field->key != NULL) {
        check_list_keys(decoder, field, node);
    }
    write_list(object, field, items, count);
}

static void decode_pointer(struct route_decoder *decoder, const struct route_field *field,
                           const struct route_node *node, void *out)
{
    void *object = route_decode_alloc(decoder, 1, field->of->size);
    if (object == NULL) {
        return;
    }
    decode_struct(decoder, field->of, node, object);
    memcpy(out, &object, sizeof(object));
}

static void decode_string(struct route_decoder *decoder, const struct route_field *field,
                          const struct route_node *node, void *out)
{
    struct bytes text = route_decode_take_text(decoder, field, node, field->min, field->max);
    if (field->width != 0) { /* 0: only checked */
        memcpy(out, &text, sizeof(text));
    }
}

static void decode_field(struct route_decoder *decoder, const struct route_field *field,
                         const struct route_node *node, void *object)
{
    uint8_t *out = (uint8_t *)object + field->offset;
    switch (field->type) {
    case ROUTE_FIELD_STRING:
        decode_string(decoder, field, node, out);
        break;
    case ROUTE_FIELD_ENUM:
        route_decode_enum(decoder, field, node, out);
        break;
    case ROUTE_FIELD_INT:
        route_decode_int(decoder, field, node, out);
        break;
    case ROUTE_FIELD_BOOL:
        route_decode_bool(decoder, node, out);
        break;
    case ROUTE_FIELD_DURATION:
        route_decode_duration(decoder, node, out);
        break;
    case ROUTE_FIELD_INLINE:
        decode_struct(decoder, field->of, node, out);
        break;
    case ROUTE_FIELD_POINTER:
        decode_pointer(decoder, field, node, out);
        break;
    case ROUTE_FIELD_LIST:
        decode_list(decoder, field, node, object);
        break;
    case ROUTE_FIELD_STRINGS:
        decode_strings(decoder, field, node, object);
        break;
    case ROUTE_FIELD_INTS:
        decode_ints(decoder, field, node, object);
        break;
    case ROUTE_FIELD_MAP:
    case ROUTE_FIELD_KEYS:
        decode_map(decoder, field, node, object);
        break;
    case ROUTE_FIELD_CHECKED:
    case ROUTE_FIELD_IGNORED:
        break;
    }
}

/* The value that an API server would have filled in. */
static void write_default(const struct route_field *field, void *out)
{
    struct bytes text = bytes_from_string(field->default_text);
    uint64_t number = 0;
    switch (field->type) {
    case ROUTE_FIELD_STRING:
        memcpy(out, &text, sizeof(text));
        break;
    case ROUTE_FIELD_ENUM:
        for (const struct route_word *word = field->words; word->word != NULL; word++) {
            if (bytes_is(text, word->word)) {
                route_decode_write_number(out, field, word->value);
            }
        }
        break;
    case ROUTE_FIELD_INT:
        CHECK(!error_is(bytes_parse_decimal(text, UINT32_MAX, &number)));
        route_decode_write_number(out, field, number);
        break;
    case ROUTE_FIELD_DURATION:
        CHECK(!error_is(route_duration_parse(text, (int64_t *)out)));
        break;
    case ROUTE_FIELD_BOOL:
    case ROUTE_FIELD_INLINE:
    case ROUTE_FIELD_POINTER:
    case ROUTE_FIELD_LIST:
    case ROUTE_FIELD_STRINGS:
    case ROUTE_FIELD_INTS:
    case ROUTE_FIELD_MAP:
    case ROUTE_FIELD_KEYS:
    case ROUTE_FIELD_CHECKED:
    case ROUTE_FIELD_IGNORED:
        CHECK(false); /* the tables have no defaults for these */
        break;
    }
}

/* A duration that was not given is not zero, which would switch something off. */
static void write_absent(const struct route_field *field, void *object)
{
    uint8_t *out = (uint8_t *)object + field->offset;
    if (field->type == ROUTE_FIELD_DURATION) {
        int64_t absent = ROUTE_DURATION_ABSENT;
        memcpy(out, &absent, sizeof(absent));
    }
    if (field->type == ROUTE_FIELD_INLINE) {
        for (uint16_t i = 0; i < field->of->fields_count; i++) {
            write_absent(&field->of->fields[i], out);
        }
    }
}

static void report_unknown_field(struct route_decoder *decoder, enum route_severity severity,
                                 const struct route_node *node, const char *suggestion)
{
    char message[ROUTE_DECODE_MESSAGE_BYTES_MAX];
    snprintf(message, sizeof(message), "unknown field \"%s\"", node->key);
    struct route_position position = {decoder->object->position.file, node->key_line,
                                      node->key_column};
    route_decode_report(decoder, severity, position, "unknown-field", suggestion, message);
}

static void report_unknown(struct route_decoder *decoder, const struct route_type *type,
                           const struct route_node *node)
{
    struct route_guess guess = {.word = bytes_make(node->key, node->key_bytes),
                                .best = ROUTE_TEXT_FAR};
    for (uint16_t i = 0; i < type->fields_count; i++) {
        route_guess_consider(&guess, type->fields[i].name);
    }
    report_unknown_field(decoder,
                         decoder->schema->is_strict ? ROUTE_SEVERITY_ERROR : ROUTE_SEVERITY_WARNING,
                         node, route_guess_best(&guess));
}

static const struct route_field *find_field(const struct route_type *type,
                                            const struct route_node *node, uint16_t *ret_index)
{
    for (uint16_t i = 0; i < type->fields_count; i++) {
        const char *name = type->fields[i].name;
        if (name[0] == node->key[0] && strncmp(name, node->key, node->key_bytes) == 0 &&
            name[node->key_bytes] == '\0') {
            *ret_index = i;
            return &type->fields[i];
        }
    }
    return NULL;
}

/* Fields that were not given: required ones are missing, others have their default. */
static void finish_fields(struct route_decoder *decoder, const struct route_type *type,
                          const struct route_node *node, uint32_t given, void *object)
{
    for (uint16_t i = 0; i < type->fields_count; i++) {
        const struct route_field *field = &type->fields[i];
        if ((given & UINT32_C(1) << i) != 0) {
            continue;
        }
        if (field->is_required) {
            route_decode_fail(decoder, node, "required", "%s is required", field->name);
        } else if (field->default_text != NULL) {
            write_default(field, (uint8_t *)object + field->offset);
        }
    }
}

/* Recursion is over the tables, which nest less than ROUTE_DECODE_DEPTH_MAX deep, whatever the
 * input. */
static void decode_struct(struct route_decoder *decoder, const struct route_type *type,
                          const struct route_node *node, void *object)
{
    CHECK(type->fields_count <= 32);
    if (type->has_position) {
        *(struct route_position *)object = route_decode_place(decoder, node);
    }
    for (uint16_t i = 0; i < type->fields_count; i++) {
        write_absent(&type->fields[i], object);
    }
    if (node->type != ROUTE_NODE_MAPPING) {
        route_decode_fail(decoder, node, "wrong-type", "must be a mapping, not %s",
                          route_decode_describe(node));
        return;
    }
    uint32_t errors_before = decoder->errors_count;
    uint32_t given = 0;
    for (const struct route_node *child = node->first; child != NULL; child = child->next) {
        uint16_t index = 0;
        const struct route_field *field = find_field(type, child, &index);
        if (field == NULL) {
            if (!type->is_open) {
                report_unknown(decoder, type, child);
            }
            continue;
        }
        if (route_node_is_null(child)) {
            continue;
        }
        given |= UINT32_C(1) << index;
        push(decoder, field->name, 0);
        decode_field(decoder, field, child, object);
        pop(decoder);
    }
    finish_fields(decoder, type, node, given, object);
    /* Relations are only checked between values that are right by themselves. */
    if (type->check != NULL && decoder->errors_count == errors_before &&
        !decoder->is_out_of_memory) {
        type->check(decoder, node, object);
    }
}

/* ---- Objects ---- */

static struct bytes copy_or_fail(struct route_decoder *decoder, struct bytes text)
{
    struct bytes copy = arena_copy(decoder->arena, text);
    decoder->is_out_of_memory = decoder->is_out_of_memory || copy.data == NULL;
    return copy;
}

/* metadata.namespace, or what kubectl would have put there. */
static void decode_namespace(struct route_decoder *decoder, const struct route_node *metadata,
                             struct route_object *object)
{
    static const struct route_field field = {
        .name = "namespace", .type = ROUTE_FIELD_STRING, .form = ROUTE_TEXT_LABEL};
    const struct route_node *node = route_node_find(metadata, "namespace");
    if (decoder->schema->is_cluster_scoped) {
        object->namespace = BYTES("");
        return;
    }
    if (route_node_is_null(node) || route_node_text(node).size == 0) {
        object->namespace = BYTES("default");
        return;
    }
    push(decoder, "namespace", 0);
    object->namespace = route_decode_take_text(decoder, &field, node, 1, 63);
    pop(decoder);
}

/* A mapping from names to text, each value of that form; null is "" to Kubernetes. */
static void check_map(struct route_decoder *decoder, const struct route_node *map,
                      enum route_text_form form)
{
    if (route_node_is_null(map)) {
        return;
    }
    if (map->type != ROUTE_NODE_MAPPING) {
        route_decode_fail(decoder, map, "wrong-type", "must be a mapping, not %s",
                          route_decode_describe(map));
        return;
    }
    for (const struct route_node *item = map->first; item != NULL; item = item->next) {
        push(decoder, item->key, 0);
        struct bytes key = bytes_make(item->key, item->key_bytes);
        if (!route_text_has_form(key, ROUTE_TEXT_QUALIFIED)) {
            route_decode_fail(decoder, item, "invalid-value", "the key must be %s",
                              route_text_form_name(ROUTE_TEXT_QUALIFIED));
        }
        struct bytes text =
            route_node_is_null(item) ? (struct bytes){0} : route_decode_read_text(decoder, item);
        if (text.data != NULL && !route_text_has_form(text, form)) {
            route_decode_fail(decoder, item, "invalid-value", "must be %s, not \"%s\"",
                              route_text_form_name(form), item->text);
        }
        pop(decoder);
    }
}

void route_decode_labels(struct route_decoder *decoder, const struct route_node *node)
{
    check_map(decoder, node, ROUTE_TEXT_LABEL_VALUE);
}

static void check_metadata_map(struct route_decoder *decoder, const struct route_node *metadata,
                               const char *name, enum route_text_form form)
{
    push(decoder, name, 0);
    check_map(decoder, route_node_find(metadata, name), form);
    pop(decoder);
}

static void decode_created(struct route_decoder *decoder, const struct route_node *metadata,
                           struct route_object *object)
{
    const struct route_node *node = route_node_find(metadata, "creationTimestamp");
    object->created = ROUTE_CREATED_ABSENT;
    if (route_node_is_null(node)) {
        return;
    }
    if (error_is(route_time_parse(route_node_text(node), &object->created))) {
        push(decoder, "creationTimestamp", 0);
        route_decode_fail(decoder, node, "invalid-value", "must be a time such as %s",
                          "2024-05-01T12:00:00Z");
        pop(decoder);
    }
}

/* A namespace that is misspelt would be "default" without a word. */
static void check_metadata_names(struct route_decoder *decoder, const struct route_node *metadata)
{
    static const char *const known[] = {"name",
                                        "namespace",
                                        "labels",
                                        "annotations",
                                        "creationTimestamp",
                                        "resourceVersion",
                                        "uid",
                                        "generation",
                                        "managedFields",
                                        "ownerReferences",
                                        "finalizers",
                                        "generateName",
                                        "selfLink",
                                        "deletionTimestamp",
                                        "deletionGracePeriodSeconds"};
    if (metadata == NULL || metadata->type != ROUTE_NODE_MAPPING) {
        return;
    }
    for (const struct route_node *item = metadata->first; item != NULL; item = item->next) {
        struct route_guess guess = {.word = bytes_make(item->key, item->key_bytes),
                                    .best = ROUTE_TEXT_FAR};
        bool is_known = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && !is_known; i++) {
            is_known = bytes_is(guess.word, known[i]);
        }
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && !is_known; i++) {
            route_guess_consider(&guess, known[i]);
        }
        if (!is_known) {
            report_unknown_field(decoder, ROUTE_SEVERITY_WARNING, item, route_guess_best(&guess));
        }
    }
}

static void decode_metadata(struct route_decoder *decoder, const struct route_node *node,
                            struct route_object *object)
{
    /* A Service's name is one label of its host name. */
    bool is_label = decoder->schema->kind == ROUTE_KIND_SERVICE;
    const struct route_field field = {.name = "name",
                                      .type = ROUTE_FIELD_STRING,
                                      .form = is_label ? ROUTE_TEXT_LABEL : ROUTE_TEXT_SUBDOMAIN};
    const struct route_node *metadata = route_node_find(node, "metadata");
    push(decoder, "metadata", 0);
    const struct route_node *name = route_node_find(metadata, "name");
    decode_namespace(decoder, metadata, object);
    decode_created(decoder, metadata, object);
    check_metadata_names(decoder, metadata);
    check_metadata_map(decoder, metadata, "labels", ROUTE_TEXT_LABEL_VALUE);
    check_metadata_map(decoder, metadata, "annotations", ROUTE_TEXT_ANY);
    if (route_node_is_null(name)) {
        route_decode_fail(decoder, metadata == NULL ? node : metadata, "required",
                          "name is required");
    } else {
        object->name_position = route_decode_place(decoder, name);
        push(decoder, "name", 0);
        object->name = route_decode_take_text(decoder, &field, name, 1, is_label ? 63 : 253);
        pop(decoder);
    }
    pop(decoder);
}

/* Nodes below `node`, so that the arena's first chunk fits; no recursion, the tree is walked by its
 * depth. */
static size_t count_nodes(const struct route_node *node)
{
    const struct route_node *stack[ROUTE_FILE_DEPTH_MAX + 2];
    size_t depth = 0;
    size_t count = 0;
    stack[depth++] = node;
    while (depth > 0) {
        const struct route_node *top = stack[--depth];
        for (; top != NULL; top = top->next) {
            count++;
            if (top->type != ROUTE_NODE_SCALAR && top->first != NULL) {
                if (top->next != NULL) {
                    stack[depth++] = top->next;
                }
                stack[depth++] = top->first;
                break;
            }
        }
    }
    return count;
}

static size_t estimate_bytes(const struct route_node *node, const struct route_schema *schema)
{
    const struct route_node *spec = route_node_find(node, "spec");
    size_t bytes = OBJECT_BYTES_FIXED + schema->type->size;
    /* A kind without spec has its fields at the top, and metadata beside them is small change. */
    const struct route_node *counted = spec == NULL ? node : spec;
    if (counted->type != ROUTE_NODE_SCALAR && counted->first != NULL) {
        bytes += OBJECT_BYTES_PER_NODE * count_nodes(counted->first);
    }
    return bytes < OBJECT_BYTES_FIRST_MAX ? bytes : OBJECT_BYTES_FIRST_MAX;
}

FALLIBLE route_decode(const char *file, const struct route_node *node,
                      const struct route_schema *schema, struct route_diagnostics *diagnostics,
                      const struct route_object **ret_object)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    TRY(route_object_create(schema->type->size, estimate_bytes(node, schema), &object, &arena));
    struct route_decoder decoder = {
        .file = file,
        .arena = arena,
        .diagnostics = diagnostics,
        .schema = schema,
        .object = object,
    };
    object->kind = schema->kind;
    object->group = bytes_from_string(schema->group);
    object->kind_name = bytes_from_string(schema->kind_name);
    struct bytes version = route_node_text(route_node_find(node, "apiVersion"));
    size_t slash = bytes_find(version, '/');
    object->version =
        copy_or_fail(&decoder, slash == version.size ? version : bytes_skip(version, slash + 1));
    object->position.file = (const char *)copy_or_fail(&decoder, bytes_from_string(file)).data;
    object->position.line = node->line;
    object->position.column = node->column;
    if (!decoder.is_out_of_memory) {
        decode_metadata(&decoder, node, object);
        decode_struct(&decoder, schema->type, node, object);
    }
    if (decoder.is_out_of_memory || decoder.errors_count > 0) {
        route_object_unref(object);
        return error_make(decoder.is_out_of_memory ? ERROR_NO_MEMORY : ERROR_CONFIG, 0);
    }
    *ret_object = object;
    return OK;
}

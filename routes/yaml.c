/* libyaml's event parser under bounds that are checked at every event. */
#include "routes/yaml.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/check.h"
#include "routes/census.h"
#include "routes/yaml_text.h"

enum {
    TEXT_CHUNK_BYTES = 4096,
    /* Below this many keys comparing each pair is cheaper than sorting. */
    KEYS_COMPARED_MAX = 24,
};

/* A sequence or mapping that is still open. */
struct frame {
    struct route_node *node;
    struct route_node *last; /* child */
    const char *key;         /* read, and waiting for its value */
    uint32_t key_line;
    uint32_t key_column;
    uint16_t key_bytes;
};

struct route_yaml {
    yaml_parser_t parser;
    const char *file;
    struct route_diagnostics *diagnostics;
    struct arena *arena;  /* of the document that is being read */
    struct bytes content; /* borrowed: what libyaml reads */
    struct route_joins joins;
    uint8_t *selected;                    /* owned: the texts of several sections, or NULL */
    const struct route_section *sections; /* borrowed; none: the whole file */
    uint32_t sections_count;
    uint32_t section;      /* the one that is being read */
    uint32_t section_line; /* where it begins in what libyaml reads, from 0 */
    uint32_t document_line;
    char *text_next; /* packed texts: the arena would round each up to 16 bytes */
    char *text_end;
    uint32_t nodes_count;
    uint32_t depth;
    bool has_failed;
    struct frame frames[ROUTE_FILE_DEPTH_MAX + 1]; /* the first holds the document */
};

static const char too_many[] = "the file has more than 500,000 nodes";

/* ---- Refusing ---- */

static struct error refuse(struct route_yaml *yaml, struct route_spot at, const char *code,
                           const char *text)
{
    struct route_position position = {yaml->file, at.line, at.column};
    route_diagnostics_add(yaml->diagnostics, ROUTE_SEVERITY_ERROR, position, code, NULL, "%s",
                          text);
    yaml->has_failed = true;
    return error_make(ERROR_CONFIG, 0);
}

/* ---- Nodes ---- */

/* The place in the file. */
static struct route_spot place(const struct route_yaml *yaml, yaml_mark_t mark)
{
    struct route_spot at = {(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
    at.column += route_joins_shift(&yaml->joins, at);
    if (yaml->sections_count > 0) {
        at.line = yaml->sections[yaml->section].line + (uint32_t)mark.line - yaml->section_line;
    }
    return at;
}

/* A copy with a NUL, packed; NULL without memory. */
static const char *copy_text(struct route_yaml *yaml, const void *data, size_t size)
{
    if (yaml->text_next == NULL || (size_t)(yaml->text_end - yaml->text_next) < size + 1) {
        size_t chunk = size + 1 > TEXT_CHUNK_BYTES / 4 ? size + 1 : TEXT_CHUNK_BYTES;
        char *memory = arena_alloc(yaml->arena, chunk);
        if (memory == NULL) {
            return NULL;
        }
        if (chunk != TEXT_CHUNK_BYTES) {
            memcpy(memory, data, size);
            memory[size] = '\0';
            return memory;
        }
        yaml->text_next = memory;
        yaml->text_end = memory + chunk;
    }
    char *copy = yaml->text_next;
    memcpy(copy, data, size);
    copy[size] = '\0';
    yaml->text_next += size + 1;
    return copy;
}

static int compare_keys(const void *left, const void *right)
{
    const struct route_node *const *a = left;
    const struct route_node *const *b = right;
    int order = bytes_compare(bytes_make((*a)->key, (*a)->key_bytes),
                              bytes_make((*b)->key, (*b)->key_bytes));
    if (order != 0) {
        return order;
    }
    if ((*a)->key_line != (*b)->key_line) {
        return (*a)->key_line < (*b)->key_line ? -1 : 1;
    }
    return (*a)->key_column < (*b)->key_column ? -1 : (*a)->key_column > (*b)->key_column;
}

static struct error refuse_duplicate(struct route_yaml *yaml, const struct route_node *first,
                                     const struct route_node *second)
{
    struct route_position position = {yaml->file, second->key_line, second->key_column};
    route_diagnostics_add(yaml->diagnostics, ROUTE_SEVERITY_ERROR, position, "duplicate-key", NULL,
                          "the key \"%s\" stands here for the second time; the first is on line %u",
                          second->key, first->key_line);
    yaml->has_failed = true;
    return error_make(ERROR_CONFIG, 0);
}

/* All keys of a large mapping at once: sorting bounds the time whatever the keys are. */
static struct error check_keys_sorted(struct route_yaml *yaml, const struct route_node *mapping)
{
    const struct route_node **sorted = malloc(mapping->count * sizeof(const struct route_node *));
    if (sorted == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t count = 0;
    for (const struct route_node *child = mapping->first; child != NULL; child = child->next) {
        sorted[count++] = child;
    }
    qsort(sorted, count, sizeof(const struct route_node *), compare_keys);
    struct error error = OK;
    for (uint32_t i = 1; i < count && !error_is(error); i++) {
        if (sorted[i - 1]->key_bytes == sorted[i]->key_bytes &&
            memcmp(sorted[i - 1]->key, sorted[i]->key, sorted[i]->key_bytes) == 0) {
            error = refuse_duplicate(yaml, sorted[i - 1], sorted[i]);
        }
    }
    free(sorted);
    return error;
}

static struct error check_keys(struct route_yaml *yaml, const struct route_node *mapping)
{
    if (mapping->count > KEYS_COMPARED_MAX) {
        return check_keys_sorted(yaml, mapping);
    }
    for (const struct route_node *a = mapping->first; a != NULL; a = a->next) {
        for (const struct route_node *b = a->next; b != NULL; b = b->next) {
            if (a->key_bytes == b->key_bytes && memcmp(a->key, b->key, a->key_bytes) == 0) {
                return refuse_duplicate(yaml, a, b);
            }
        }
    }
    return OK;
}

/* Make a node and hang it into the open collection. */
static struct error add_node(struct route_yaml *yaml, enum route_node_type type,
                             struct route_spot at, struct route_node **ret_node)
{
    if (yaml->nodes_count >= ROUTE_FILE_NODES_MAX) {
        return refuse(yaml, at, "too-many-nodes", too_many);
    }
    yaml->nodes_count++;
    struct route_node *node = arena_alloc(yaml->arena, sizeof(*node));
    if (node == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *node = (struct route_node){.type = (uint8_t)type, .line = at.line, .column = at.column};
    if (yaml->depth > 0) {
        struct frame *frame = &yaml->frames[yaml->depth - 1];
        node->key = frame->key;
        node->key_bytes = frame->key_bytes;
        node->key_line = frame->key_line;
        node->key_column = frame->key_column;
        frame->key = NULL;
        if (frame->last == NULL) {
            frame->node->first = node;
        } else {
            frame->last->next = node;
        }
        frame->last = node;
        frame->node->count++;
    }
    *ret_node = node;
    return OK;
}

/* Does the open collection wait for a key? */
static bool wants_key(const struct route_yaml *yaml)
{
    if (yaml->depth == 0) {
        return false;
    }
    const struct frame *frame = &yaml->frames[yaml->depth - 1];
    return frame->node->type == ROUTE_NODE_MAPPING && frame->key == NULL;
}

static struct error open_collection(struct route_yaml *yaml, enum route_node_type type,
                                    struct route_spot at)
{
    if (wants_key(yaml)) {
        return refuse(yaml, at, "key-not-text", "a key must be text");
    }
    if (yaml->depth > ROUTE_FILE_DEPTH_MAX) {
        return refuse(yaml, at, "too-deep", "nested more than 64 levels deep");
    }
    struct route_node *node = NULL;
    TRY(add_node(yaml, type, at, &node));
    yaml->frames[yaml->depth++] = (struct frame){.node = node};
    return OK;
}

static struct error read_key(struct route_yaml *yaml, const yaml_event_t *event)
{
    struct route_spot at = place(yaml, event->start_mark);
    size_t size = event->data.scalar.length;
    const char *text = (const char *)event->data.scalar.value;
    if (size > ROUTE_KEY_BYTES_MAX) {
        return refuse(yaml, at, "too-long", "a key is longer than 1,024 bytes");
    }
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(text, "<<") == 0) {
        return refuse(yaml, at, "merge-key", "merge keys (\"<<\") are not supported");
    }
    struct frame *frame = &yaml->frames[yaml->depth - 1];
    frame->key = copy_text(yaml, text, size);
    if (frame->key == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    frame->key_bytes = (uint16_t)size;
    frame->key_line = at.line;
    frame->key_column = at.column;
    return OK;
}

static struct error read_scalar(struct route_yaml *yaml, const yaml_event_t *event)
{
    struct route_spot at = place(yaml, event->start_mark);
    size_t size = event->data.scalar.length;
    if (memchr(event->data.scalar.value, 0, size) != NULL) {
        return refuse(yaml, at, "nul-byte", "a text holds a NUL byte (\"\\0\")");
    }
    if (wants_key(yaml)) {
        return read_key(yaml, event);
    }
    if (size > ROUTE_SCALAR_BYTES_MAX) {
        return refuse(yaml, at, "too-long", "a text is longer than 1 MiB");
    }
    struct route_node *node = NULL;
    TRY(add_node(yaml, ROUTE_NODE_SCALAR, at, &node));
    node->text = copy_text(yaml, event->data.scalar.value, size);
    if (node->text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    node->count = (uint32_t)size;
    /* plain_implicit: no tag said what it is, so its looks may. */
    node->is_plain =
        event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && event->data.scalar.plain_implicit;
    return OK;
}

static struct error close_collection(struct route_yaml *yaml)
{
    struct frame *frame = &yaml->frames[--yaml->depth];
    return frame->node->type == ROUTE_NODE_MAPPING ? check_keys(yaml, frame->node) : OK;
}

/* ---- Events ---- */

/* Only YAML's own tags, which do not change what our schema makes of a value. */
static bool is_known_tag(const yaml_char_t *tag)
{
    static const char *const known[] = {
        "!",
        "tag:yaml.org,2002:str",
        "tag:yaml.org,2002:int",
        "tag:yaml.org,2002:bool",
        "tag:yaml.org,2002:float",
        "tag:yaml.org,2002:null",
        "tag:yaml.org,2002:map",
        "tag:yaml.org,2002:seq",
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp((const char *)tag, known[i]) == 0) {
            return true;
        }
    }
    return false;
}

static struct error check_decoration(struct route_yaml *yaml, const yaml_event_t *event,
                                     const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL) {
        return refuse(yaml, place(yaml, event->start_mark), "alias",
                      "anchors and aliases are not supported");
    }
    if (tag != NULL && !is_known_tag(tag)) {
        return refuse(yaml, place(yaml, event->start_mark), "tag", "tags are not supported");
    }
    return OK;
}

/* Is that line of the content indented by a tab? What libyaml says about that nobody would guess.
 */
static bool is_tab_indented(const struct route_yaml *yaml, uint32_t number)
{
    struct bytes rest = yaml->content;
    for (uint32_t line = 1; line < number && rest.size > 0; line++) {
        size_t end = bytes_find(rest, '\n');
        rest = bytes_skip(rest, end == rest.size ? end : end + 1);
    }
    size_t blanks = 0;
    while (rest.data != NULL && blanks < rest.size && rest.data[blanks] == ' ') {
        blanks++;
    }
    return rest.data != NULL && blanks < rest.size && rest.data[blanks] == '\t';
}

static struct error refuse_syntax(struct route_yaml *yaml)
{
    const yaml_parser_t *parser = &yaml->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct route_spot at = place(yaml, parser->problem_mark);
    struct route_position position = {yaml->file, at.line, at.column};
    const char *problem = parser->problem == NULL ? "cannot be read" : parser->problem;
    if (is_tab_indented(yaml, (uint32_t)parser->problem_mark.line + 1)) {
        route_diagnostics_add(yaml->diagnostics, ROUTE_SEVERITY_ERROR, position, "not-yaml", NULL,
                              "not YAML: a tab cannot indent, use spaces");
    } else if (parser->context != NULL) {
        route_diagnostics_add(yaml->diagnostics, ROUTE_SEVERITY_ERROR, position, "not-yaml", NULL,
                              "not YAML: %s, %s", problem, parser->context);
    } else {
        route_diagnostics_add(yaml->diagnostics, ROUTE_SEVERITY_ERROR, position, "not-yaml", NULL,
                              "not YAML: %s", problem);
    }
    yaml->has_failed = true;
    return error_make(ERROR_CONFIG, 0);
}

static struct error handle_event(struct route_yaml *yaml, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return refuse(yaml, place(yaml, event->start_mark), "alias",
                      "anchors and aliases are not supported");
    case YAML_SCALAR_EVENT:
        TRY(check_decoration(yaml, event, event->data.scalar.anchor, event->data.scalar.tag));
        return read_scalar(yaml, event);
    case YAML_SEQUENCE_START_EVENT:
        TRY(check_decoration(yaml, event, event->data.sequence_start.anchor,
                             event->data.sequence_start.tag));
        return open_collection(yaml, ROUTE_NODE_SEQUENCE, place(yaml, event->start_mark));
    case YAML_MAPPING_START_EVENT:
        TRY(check_decoration(yaml, event, event->data.mapping_start.anchor,
                             event->data.mapping_start.tag));
        return open_collection(yaml, ROUTE_NODE_MAPPING, place(yaml, event->start_mark));
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_collection(yaml);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return OK;
    }
    return OK;
}

/* Read to the end of the document that has begun; its root is the first node that is made. */
static struct error read_document(struct route_yaml *yaml, struct route_node *holder)
{
    yaml->depth = 0;
    yaml->frames[yaml->depth++] = (struct frame){.node = holder};
    for (;;) {
        yaml_event_t event;
        if (yaml_parser_parse(&yaml->parser, &event) == 0) {
            return refuse_syntax(yaml);
        }
        struct error error = handle_event(yaml, &event);
        bool is_end = event.type == YAML_DOCUMENT_END_EVENT;
        yaml_event_delete(&event);
        if (error_is(error) || is_end) {
            return error;
        }
    }
}

static struct error check_encoding(struct route_yaml *yaml, struct bytes content)
{
    struct route_encoding_fault fault;
    if (route_encoding_is_sound(content, &fault)) {
        return OK;
    }
    return refuse(yaml, fault.at, fault.code, fault.text);
}

/* Millions of nodes are refused before the first is made; a node takes at least a byte. */
static struct error check_count(struct route_yaml *yaml, struct bytes content)
{
    struct route_spot spot = {0};
    if (content.size > ROUTE_FILE_NODES_MAX &&
        route_census(content, ROUTE_FILE_NODES_MAX, &spot) > ROUTE_FILE_NODES_MAX) {
        return refuse(yaml, (struct route_spot){spot.line, spot.column}, "too-many-nodes",
                      too_many);
    }
    return OK;
}

/* All that is refused before libyaml sees anything; leaves what it will read. */
static struct error check_text(struct route_yaml *yaml, struct bytes *content)
{
    if (content->size > ROUTE_FILE_BYTES_MAX) {
        return refuse(yaml, (struct route_spot){0, 0}, "too-large",
                      "the file is larger than 8 MiB");
    }
    if (bytes_starts_with(*content, BYTES("\xef\xbb\xbf"))) {
        *content = bytes_skip(*content, 3);
    }
    TRY(check_count(yaml, *content));
    TRY(check_encoding(yaml, *content));
    return route_joins_make(&yaml->joins, content);
}

/* Begin to read; the content is checked first. */
static struct error begin(struct route_yaml *yaml, struct bytes content)
{
    TRY(check_text(yaml, &content));
    /* Named, so that libyaml does not guess UTF-16 from the first bytes. */
    yaml_parser_set_encoding(&yaml->parser, YAML_UTF8_ENCODING);
    yaml->content = content;
    yaml_parser_set_input_string(
        &yaml->parser, content.size == 0 ? (const uint8_t *)"" : content.data, content.size);
    return OK;
}

static struct error create(const char *file, struct route_diagnostics *diagnostics,
                           struct route_yaml **ret_yaml)
{
    struct route_yaml *yaml = calloc(1, sizeof(*yaml));
    if (yaml == NULL || yaml_parser_initialize(&yaml->parser) == 0) {
        free(yaml);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    yaml->file = file;
    yaml->diagnostics = diagnostics;
    *ret_yaml = yaml;
    return OK;
}

FALLIBLE route_yaml_create(const char *file, struct bytes content,
                           struct route_diagnostics *diagnostics, struct route_yaml **ret_yaml)
{
    struct route_yaml *yaml = NULL;
    TRY(create(file, diagnostics, &yaml));
    struct error error = begin(yaml, content);
    if (error_is(error)) {
        route_yaml_destroy(yaml);
        return error;
    }
    *ret_yaml = yaml;
    return OK;
}

/* The texts of all sections, one behind the other. */
static struct error select_text(struct route_yaml *yaml, struct bytes *ret_text)
{
    size_t size = 0;
    for (uint32_t i = 0; i < yaml->sections_count; i++) {
        size += yaml->sections[i].text.size;
    }
    yaml->selected = malloc(size + 1);
    if (yaml->selected == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    size = 0;
    for (uint32_t i = 0; i < yaml->sections_count; i++) {
        struct bytes text = yaml->sections[i].text;
        memcpy(yaml->selected + size, text.data, text.size);
        size += text.size;
    }
    *ret_text = bytes_make(yaml->selected, size);
    return OK;
}

FALLIBLE route_yaml_create_sections(const char *file, const struct route_section *sections,
                                    uint32_t count, struct route_diagnostics *diagnostics,
                                    struct route_yaml **ret_yaml)
{
    struct route_yaml *yaml = NULL;
    struct bytes text = {0};
    TRY(create(file, diagnostics, &yaml));
    yaml->sections = sections;
    yaml->sections_count = count;
    struct error error = select_text(yaml, &text);
    if (!error_is(error)) {
        error = begin(yaml, text);
    }
    if (error_is(error)) {
        route_yaml_destroy(yaml);
        return error;
    }
    *ret_yaml = yaml;
    return OK;
}

/* A document begins: find its section. */
static void begin_document(struct route_yaml *yaml, yaml_mark_t mark)
{
    while (yaml->section + 1 < yaml->sections_count &&
           mark.line >= yaml->section_line + yaml->sections[yaml->section].lines_count) {
        yaml->section_line += yaml->sections[yaml->section].lines_count;
        yaml->section++;
    }
    yaml->document_line = place(yaml, mark).line;
}

FALLIBLE route_yaml_next(struct route_yaml *yaml, struct arena *arena,
                         const struct route_node **ret_document)
{
    yaml->arena = arena;
    yaml->text_next = NULL;
    yaml->text_end = NULL;
    while (!yaml->has_failed) {
        yaml_event_t event;
        if (yaml_parser_parse(&yaml->parser, &event) == 0) {
            return refuse_syntax(yaml);
        }
        yaml_event_type_t type = event.type;
        yaml_mark_t mark = event.start_mark;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT || type == YAML_NO_EVENT) {
            break;
        }
        if (type != YAML_DOCUMENT_START_EVENT) {
            continue;
        }
        struct route_node holder = {.type = ROUTE_NODE_SEQUENCE};
        begin_document(yaml, mark);
        TRY(read_document(yaml, &holder));
        if (holder.first != NULL) {
            *ret_document = holder.first;
            return OK;
        }
    }
    *ret_document = NULL;
    return OK;
}

void route_yaml_destroy(struct route_yaml *yaml)
{
    if (yaml == NULL) {
        return;
    }
    yaml_parser_delete(&yaml->parser);
    route_joins_finish(&yaml->joins);
    free(yaml->selected);
    free(yaml);
}

uint32_t route_yaml_nodes_count(const struct route_yaml *yaml)
{
    return yaml->nodes_count;
}

uint32_t route_yaml_document_line(const struct route_yaml *yaml)
{
    return yaml->document_line;
}

/* ---- Reading the tree ---- */

const struct route_node *route_node_find(const struct route_node *node, const char *key)
{
    if (node == NULL || node->type != ROUTE_NODE_MAPPING) {
        return NULL;
    }
    size_t size = strlen(key);
    for (const struct route_node *child = node->first; child != NULL; child = child->next) {
        if (child->key_bytes == size && memcmp(child->key, key, size) == 0) {
            return child;
        }
    }
    return NULL;
}

struct bytes route_node_text(const struct route_node *node)
{
    if (node == NULL || node->type != ROUTE_NODE_SCALAR) {
        return (struct bytes){0};
    }
    return bytes_make(node->text, node->count);
}

bool route_node_is_null(const struct route_node *node)
{
    if (node == NULL) {
        return true;
    }
    if (node->type != ROUTE_NODE_SCALAR || !node->is_plain) {
        return false;
    }
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++) {
        if (strcmp(node->text, nulls[i]) == 0) {
            return true;
        }
    }
    return false;
}

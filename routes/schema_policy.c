/*
 * What Gateway API has beside routes: ReferenceGrant, BackendTLSPolicy, XBackendTrafficPolicy.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"

static const struct route_word san_words[] = {
    {"Hostname", ROUTE_SAN_HOSTNAME}, {"URI", ROUTE_SAN_URI}, {NULL, 0}};

static bool same_target(const struct route_target_ref *a, const struct route_target_ref *b)
{
    return bytes_equal(a->group, b->group) && bytes_equal(a->kind, b->kind) &&
           bytes_equal(a->name, b->name);
}

static void check_backend_tls(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_backend_tls_policy *policy = object;
    const struct route_node *list = route_node_find(node, "targetRefs");
    for (uint32_t i = 0; i < policy->target_refs_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            const struct route_target_ref *a = &policy->target_refs[i];
            const struct route_target_ref *b = &policy->target_refs[j];
            if (same_target(a, b) && (bytes_equal(a->section_name, b->section_name) ||
                                      (a->section_name.size == 0) != (b->section_name.size == 0))) {
                route_decode_fail(
                    decoder, list, "duplicate-target",
                    "targetRefs[%u] and [%u] name the same target: each needs its own "
                    "sectionName",
                    j, i);
            }
        }
    }
    const struct route_node *validation = route_node_find(node, "validation");
    if (validation == NULL) {
        return; /* said already */
    }
    bool has_well_known = policy->well_known_ca.size > 0;
    if (policy->ca_refs_count > 0 && has_well_known) {
        route_decode_fail(decoder, validation, "union",
                          "caCertificateRefs and wellKnownCACertificates exclude each other");
    } else if (policy->ca_refs_count == 0 && !has_well_known) {
        route_decode_fail(decoder, validation, "required",
                          "caCertificateRefs or wellKnownCACertificates is required");
    }
}

static void check_ca_ref(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    (void)node;
    struct route_ca_ref *ref = object;
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
}

static void check_san(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    const struct route_san *san = object;

    static const struct route_schema_member members[] = {
        {"Hostname", "hostname", ROUTE_SAN_HOSTNAME, false}, {"URI", "uri", ROUTE_SAN_URI, false}};

    route_schema_check_union(decoder, node, "type", san->type, members, COUNT(members));
}

enum {
    BUDGET_INTERVAL_MS_MAX = 3600000,
    BUDGET_INTERVAL_MS_MIN = 1000
};

static void check_traffic_policy(struct route_decoder *decoder, const struct route_node *node,
                                 void *object)
{
    struct route_traffic_policy *policy = object;
    const struct route_node *constraint = route_node_find(node, "retryConstraint");
    policy->has_retry_constraint = !route_node_is_null(constraint);
    const struct route_node *budget = route_node_find(constraint, "budget");
    const struct route_node *rate = route_node_find(constraint, "minRetryRate");
    if (route_node_is_null(budget)) {
        policy->budget_percent = 20;
        policy->budget_interval_ms = 10000;
    }
    if (route_node_is_null(rate)) {
        policy->min_retries = 10;
        policy->min_retries_interval_ms = 1000;
    }
    if (policy->budget_interval_ms < BUDGET_INTERVAL_MS_MIN ||
        policy->budget_interval_ms > BUDGET_INTERVAL_MS_MAX) {
        route_decode_fail(decoder, budget, "out-of-range",
                          "retryConstraint.budget.interval must be 1s to 1h");
    }
    if (policy->min_retries_interval_ms == 0 ||
        policy->min_retries_interval_ms > BUDGET_INTERVAL_MS_MAX) {
        route_decode_fail(
            decoder, rate, "out-of-range",
            "retryConstraint.minRetryRate.interval must be more than 0s and at most 1h");
    }
}

/* ---- Tables ---- */

/* clang-format off */

static const struct route_field grant_from_fields[] = {
    {FIELD_GROUP(route_grant_from, group), .is_required = true},
    {FIELD_KIND(route_grant_from, kind), .is_required = true},
    {FIELD_NAMESPACE(route_grant_from, namespace), .is_required = true},
};
static const struct route_type grant_from_type = {"from", sizeof(struct route_grant_from), false, false, grant_from_fields, COUNT(grant_from_fields), NULL};

static const struct route_field grant_to_fields[] = {
    {FIELD_GROUP(route_grant_to, group), .is_required = true},
    {FIELD_KIND(route_grant_to, kind), .is_required = true},
    {FIELD_NAME(route_grant_to, name)},
};
static const struct route_type grant_to_type = {"to", sizeof(struct route_grant_to), false, false, grant_to_fields, COUNT(grant_to_fields), NULL};

static const struct route_field grant_spec_fields[] = {
    {"from", ROUTE_FIELD_LIST, LIST_AT(route_reference_grant, from), .min = 1, .max = 16, .of = &grant_from_type, .is_required = true},
    {"to", ROUTE_FIELD_LIST, LIST_AT(route_reference_grant, to), .min = 1, .max = 16, .of = &grant_to_type, .is_required = true},
};
KIND_WITH_SPEC(grant, route_reference_grant, NULL);

static const struct route_field tls_target_fields[] = {
    {FIELD_GROUP(route_target_ref, group), .is_required = true},
    {FIELD_KIND(route_target_ref, kind), .is_required = true},
    {FIELD_NAME(route_target_ref, name), .is_required = true},
    {FIELD_SECTION(route_target_ref, section_name)},
};
static const struct route_type tls_target_type = {"targetRef", sizeof(struct route_target_ref), true, false, tls_target_fields, COUNT(tls_target_fields), NULL};

static const struct route_field ca_ref_fields[] = {
    {FIELD_GROUP(route_ca_ref, group), .is_required = true},
    {FIELD_KIND(route_ca_ref, kind), .is_required = true},
    {FIELD_NAME(route_ca_ref, name), .is_required = true},
};
static const struct route_type ca_ref_type = {"caCertificateRef", sizeof(struct route_ca_ref), true, false, ca_ref_fields, COUNT(ca_ref_fields), check_ca_ref};

static const struct route_field san_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_san, type), .words = san_words, .is_required = true},
    {"hostname", ROUTE_FIELD_STRING, AT(route_san, value), .min = 1, .max = 253, .form = ROUTE_TEXT_HOSTNAME},
    {"uri", ROUTE_FIELD_STRING, AT(route_san, value), .min = 1, .max = 253, .form = ROUTE_TEXT_URI},
};
const struct route_type route_type_san = {"subjectAltName", sizeof(struct route_san), true, false, san_fields, COUNT(san_fields), check_san};

static const struct route_field validation_fields[] = {
    {"caCertificateRefs", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, ca_refs), .max = 8, .of = &ca_ref_type},
    {"wellKnownCACertificates", ROUTE_FIELD_STRING, AT(route_backend_tls_policy, well_known_ca), .min = 1, .max = 253, .form = ROUTE_TEXT_WELL_KNOWN_CA},
    {"hostname", ROUTE_FIELD_STRING, AT(route_backend_tls_policy, hostname), .min = 1, .max = 253, .form = ROUTE_TEXT_PRECISE_HOSTNAME, .is_required = true},
    {"subjectAltNames", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, sans), .max = 5, .of = &route_type_san},
};
static const struct route_type validation_type = {"validation", sizeof(struct route_backend_tls_policy), false, false, validation_fields, COUNT(validation_fields), NULL};

static const struct route_field backend_tls_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, target_refs), .min = 1, .max = 16, .of = &tls_target_type, .is_required = true},
    {"validation", ROUTE_FIELD_INLINE, NOWHERE, .of = &validation_type, .is_required = true},
    {"options", ROUTE_FIELD_IGNORED, NOWHERE},
};
KIND_WITH_SPEC(backend_tls, route_backend_tls_policy, check_backend_tls);

static const struct route_field traffic_target_fields[] = {
    {FIELD_GROUP(route_target_ref, group), .is_required = true},
    {FIELD_KIND(route_target_ref, kind), .is_required = true},
    {FIELD_NAME(route_target_ref, name), .is_required = true},
};
static const struct route_type traffic_target_type = {"targetRef", sizeof(struct route_target_ref), true, false, traffic_target_fields, COUNT(traffic_target_fields), NULL};

static const struct route_field budget_fields[] = {
    {"percent", ROUTE_FIELD_INT, AT(route_traffic_policy, budget_percent), .max = 100, .default_text = "20"},
    {"interval", ROUTE_FIELD_DURATION, AT(route_traffic_policy, budget_interval_ms), .default_text = "10s"},
};
static const struct route_type budget_type = {"budget", sizeof(struct route_traffic_policy), false, false, budget_fields, COUNT(budget_fields), NULL};

static const struct route_field retry_rate_fields[] = {
    {"count", ROUTE_FIELD_INT, AT(route_traffic_policy, min_retries), .min = 1, .max = 1000000},
    {"interval", ROUTE_FIELD_DURATION, AT(route_traffic_policy, min_retries_interval_ms)},
};
static const struct route_type retry_rate_type = {"minRetryRate", sizeof(struct route_traffic_policy), false, false, retry_rate_fields, COUNT(retry_rate_fields), NULL};

static const struct route_field retry_constraint_fields[] = {
    {"budget", ROUTE_FIELD_INLINE, NOWHERE, .of = &budget_type},
    {"minRetryRate", ROUTE_FIELD_INLINE, NOWHERE, .of = &retry_rate_type},
};
static const struct route_type retry_constraint_type = {"retryConstraint", sizeof(struct route_traffic_policy), false, false, retry_constraint_fields, COUNT(retry_constraint_fields), NULL};

static const struct route_field traffic_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_traffic_policy, target_refs), .min = 1, .max = 16, .of = &traffic_target_type, .is_required = true},
    {"retryConstraint", ROUTE_FIELD_INLINE, NOWHERE, .of = &retry_constraint_type},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_traffic_policy, session_persistence), .of = &route_type_session},
};
KIND_WITH_SPEC(traffic, route_traffic_policy, check_traffic_policy);

/* clang-format on */

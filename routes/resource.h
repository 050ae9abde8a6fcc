/*
 * The objects as plain structs: what decode.c makes from YAML and JSON, with the defaults that an
 * API server would have filled in, and before anything was resolved against other objects (attach.c
 * does that).
 *
 * Conventions, the same for every struct here:
 *
 * - everything lives in the arena of its object and is immutable after decoding; a table that
 *   borrows from an object holds it with route_object_ref();
 * - text is `struct bytes`, always followed by a NUL byte that is not counted; data == NULL means
 *   that the field was absent;
 * - a list is a pointer and `…_count`; an absent optional struct is NULL; an absent duration is
 *   ROUTE_DURATION_ABSENT; an absent port is 0 (valid ports are 1..65535);
 * - enumerations have 0 for a value that this version does not know (the decoder has warned about
 *   it, and for routes set `unsupported` of the rule): such an object is served without what it
 *   cannot express, it never crashes anything.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* Where something stands in the configuration; line and column count from 1. What a default
 * supplied has the place of what encloses it. */
struct route_position {
    const char *file;
    uint32_t line;
    uint32_t column;
};

/* The same within the file of what encloses it; line 0: the field is not there. */
struct route_spot {
    uint32_t line;
    uint32_t column;
};

#define ROUTE_DURATION_ABSENT ((int64_t)-1)
#define ROUTE_CREATED_ABSENT INT64_MAX

enum route_kind {
    ROUTE_KIND_UNKNOWN,
    ROUTE_KIND_HTTP_ROUTE,
    ROUTE_KIND_GRPC_ROUTE,
    ROUTE_KIND_TLS_ROUTE,
    ROUTE_KIND_TCP_ROUTE,
    ROUTE_KIND_UDP_ROUTE,
    ROUTE_KIND_REFERENCE_GRANT,
    ROUTE_KIND_BACKEND_TLS_POLICY,
    ROUTE_KIND_BACKEND_TRAFFIC_POLICY,
    ROUTE_KIND_SERVICE,
    ROUTE_KIND_ENDPOINT_SLICE,
    ROUTE_KIND_CONFIG_MAP,
    ROUTE_KIND_SECRET,
    ROUTE_KIND_MESH_PARAMETERS,
    ROUTE_KIND_MESH_TLS_POLICY,
    ROUTE_KIND_AUTHORIZATION_POLICY,
    ROUTE_KIND_BODY_MATCH,
    ROUTE_KIND_COUNT,
};

struct route_label {
    struct bytes key;
    struct bytes value;
};

/* What every object begins with. `storage` belongs to resource.c. */
struct route_object {
    enum route_kind kind;
    struct bytes group;   /* "" for core */
    struct bytes version; /* "v1" */
    struct bytes kind_name;
    struct bytes namespace; /* "default" if the file has none; "" for cluster-scoped kinds */
    struct bytes name;
    int64_t created; /* seconds since 1970, or ROUTE_CREATED_ABSENT, which sorts as newest */
    struct route_position position;      /* of the object */
    struct route_position name_position; /* of metadata.name */
    struct route_storage *storage;
};

/* ---- Routes: one shape for all five kinds ---- */

struct route_parent_ref {
    struct route_position position;
    struct bytes group; /* as written; NULL when absent (which for kind Service means core here) */
    struct bytes kind;
    struct bytes namespace; /* defaulted to the route's */
    struct bytes name;
    struct bytes section_name;
    uint16_t port;
    struct route_spot name_spot;
    struct route_spot section_spot;
    struct route_spot port_spot;
};

/* How a value is compared. Order of the routes' own precedence is match.c's, not this enum's. */
enum route_match_type {
    ROUTE_MATCH_UNSUPPORTED,
    ROUTE_MATCH_EXACT,
    ROUTE_MATCH_PREFIX, /* paths only */
    ROUTE_MATCH_REGEX,
};

/* A header or a query parameter. */
struct route_value_match {
    struct route_position position;
    enum route_match_type type;
    struct bytes name; /* in the case of the file */
    struct bytes value;
};

struct route_path_match {
    struct route_position position;
    enum route_match_type type;
    struct bytes value;
};

/* HTTPRouteMatch. The path is always there (defaulted to PathPrefix "/"). */
struct route_http_match {
    struct route_position position;
    struct route_path_match path;
    const struct route_value_match *headers;
    uint32_t headers_count;
    const struct route_value_match *query_params;
    uint32_t query_params_count;
    struct bytes method; /* absent: any */
};

struct route_grpc_method_match {
    struct route_position position;
    enum route_match_type type;
    struct bytes service; /* absent: any */
    struct bytes method;  /* absent: any */
};

/* GRPCRouteMatch. method NULL: any. */
struct route_grpc_match {
    struct route_position position;
    const struct route_grpc_method_match *method;
    const struct route_value_match *headers;
    uint32_t headers_count;
};

enum route_filter_type {
    ROUTE_FILTER_UNSUPPORTED,
    ROUTE_FILTER_REQUEST_HEADER_MODIFIER,
    ROUTE_FILTER_RESPONSE_HEADER_MODIFIER,
    ROUTE_FILTER_REQUEST_REDIRECT,
    ROUTE_FILTER_URL_REWRITE,
    ROUTE_FILTER_REQUEST_MIRROR,
    ROUTE_FILTER_CORS,
    ROUTE_FILTER_EXTERNAL_AUTH,
    ROUTE_FILTER_EXTENSION_REF,
};

struct route_header {
    struct route_position position;
    struct bytes name;
    struct bytes value;
};

struct route_header_modifier {
    const struct route_header *set;
    uint32_t set_count;
    const struct route_header *add;
    uint32_t add_count;
    const struct bytes *remove;
    uint32_t remove_count;
};

enum route_path_modifier_type {
    ROUTE_PATH_MODIFIER_UNSUPPORTED,
    ROUTE_PATH_REPLACE_FULL,
    ROUTE_PATH_REPLACE_PREFIX,
};

struct route_path_modifier {
    struct route_position position;
    enum route_path_modifier_type type;
    struct bytes replace_full_path;
    struct bytes replace_prefix_match;
};

struct route_redirect {
    struct bytes scheme; /* "http", "https" or absent */
    struct bytes hostname;
    const struct route_path_modifier *path;
    uint16_t port;
    uint16_t status_code; /* 301, 302, 303, 307, 308; default 302; 0: unsupported */
};

struct route_rewrite {
    struct bytes hostname;
    const struct route_path_modifier *path;
};

/* A reference to something that takes traffic. In mirrors and external authorisation the weight is
 * 1 and there are no filters. */
struct route_backend_ref {
    struct route_position position;
    struct bytes group;
    struct bytes kind;
    struct bytes namespace; /* defaulted to the route's */
    struct bytes name;
    uint16_t port;   /* of the Service, not the target port */
    uint32_t weight; /* default 1 */
    const struct route_filter *filters;
    uint32_t filters_count;
    struct route_spot name_spot;
    struct route_spot port_spot;
};

/* numerator / denominator of the requests are copied; percent is folded into it, and neither means
 * 100 / 100. */
struct route_mirror {
    struct route_backend_ref backend;
    uint32_t numerator;
    uint32_t denominator;
};

struct route_cors {
    const struct bytes *allow_origins;
    uint32_t allow_origins_count;
    const struct bytes *allow_methods;
    uint32_t allow_methods_count;
    const struct bytes *allow_headers;
    uint32_t allow_headers_count;
    const struct bytes *expose_headers;
    uint32_t expose_headers_count;
    bool allow_credentials;
    uint32_t max_age_s;
};

enum route_external_auth_protocol {
    ROUTE_EXTERNAL_AUTH_UNSUPPORTED,
    ROUTE_EXTERNAL_AUTH_HTTP,
    ROUTE_EXTERNAL_AUTH_GRPC,
};

struct route_external_auth {
    enum route_external_auth_protocol protocol;
    struct route_backend_ref backend;
    struct bytes http_path; /* prefix of the path; HTTP only */
    const struct bytes *allowed_headers;
    uint32_t allowed_headers_count;
    const struct bytes *allowed_response_headers; /* HTTP only */
    uint32_t allowed_response_headers_count;
    bool has_forward_body;
    uint32_t forward_body_bytes_max;
};

struct route_extension_ref {
    struct bytes group;
    struct bytes kind;
    struct bytes name;
};

/* Exactly the member that belongs to `type` is set. */
struct route_filter {
    struct route_position position;
    enum route_filter_type type;
    const struct route_header_modifier *header_modifier; /* of request or response */
    const struct route_redirect *redirect;
    const struct route_rewrite *rewrite;
    const struct route_mirror *mirror;
    const struct route_cors *cors;
    const struct route_external_auth *external_auth;
    const struct route_extension_ref *extension_ref;
};

struct route_retry {
    struct route_position position;
    const uint32_t *codes;
    uint32_t codes_count;
    uint32_t attempts;  /* retries beyond the first try; 0: absent */
    int64_t backoff_ms; /* or ROUTE_DURATION_ABSENT */
};

enum route_session_type {
    ROUTE_SESSION_UNSUPPORTED,
    ROUTE_SESSION_COOKIE,
    ROUTE_SESSION_HEADER,
};

struct route_session_persistence {
    struct route_position position;
    enum route_session_type type;
    struct bytes name; /* of the cookie or header; absent: ours to choose for cookies */
    struct bytes cookie_path;
    bool cookie_is_permanent;
    int64_t absolute_timeout_ms; /* or ROUTE_DURATION_ABSENT */
};

/* Something in a rule that keeps it from being served as written, found while decoding. */
enum route_unsupported {
    ROUTE_SUPPORTED,
    ROUTE_UNSUPPORTED_VALUE,           /* an enum value of a newer API: the rule is left out */
    ROUTE_UNSUPPORTED_SECURITY_FILTER, /* what it cannot express may guard something: its requests
                                          are answered 500 */
};

/* A rule of any of the five kinds; http_matches belong to HTTPRoute, grpc_matches to GRPCRoute, the
 * rest have neither. */
struct route_rule {
    struct route_position position;
    struct bytes name;
    enum route_unsupported unsupported;
    const struct route_http_match *http_matches; /* at least one in an HTTPRoute (defaulted) */
    uint32_t http_matches_count;
    const struct route_grpc_match *grpc_matches; /* none: everything */
    uint32_t grpc_matches_count;
    const struct route_filter *filters;
    uint32_t filters_count;
    const struct route_backend_ref
        *backend_refs; /* none: the parent Service, unless a redirect answers */
    uint32_t backend_refs_count;
    int64_t timeout_request_ms; /* or ROUTE_DURATION_ABSENT; 0 switches it off */
    int64_t timeout_backend_request_ms;
    const struct route_retry *retry;
    const struct route_session_persistence *session_persistence;
};

/* HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute. */
struct route {
    struct route_object object;
    const struct route_parent_ref *parent_refs;
    uint32_t parent_refs_count;
    const struct bytes *hostnames;
    uint32_t hostnames_count;
    struct route_position hostnames_position;
    const struct route_rule *rules;
    uint32_t rules_count;
};

/* ---- Core objects ---- */

enum route_transport {
    ROUTE_TRANSPORT_UNSUPPORTED, /* SCTP */
    ROUTE_TRANSPORT_TCP,
    ROUTE_TRANSPORT_UDP,
};

struct route_service_port {
    struct route_position position;
    struct bytes name;
    enum route_transport transport;
    uint16_t port;
    uint16_t target_port; /* 0 when it is a name or absent (absent: the same as port) */
    struct bytes target_port_name;
    struct bytes app_protocol;
};

enum route_service_type {
    ROUTE_SERVICE_TYPE_UNSUPPORTED,
    ROUTE_SERVICE_CLUSTER_IP,
    ROUTE_SERVICE_NODE_PORT,
    ROUTE_SERVICE_LOAD_BALANCER,
    ROUTE_SERVICE_EXTERNAL_NAME,
};

struct route_service_object {
    struct route_object object;
    enum route_service_type type;
    const struct bytes *cluster_ips; /* clusterIP and clusterIPs without doubles; none when headless
                                        or not yet given */
    uint32_t cluster_ips_count;
    bool is_headless; /* clusterIP: None */
    bool has_selector;
    bool has_session_affinity; /* sessionAffinity: ClientIP */
    const struct route_service_port *ports;
    uint32_t ports_count;
};

struct route_slice_endpoint {
    struct route_position position;
    const struct bytes *addresses; /* of one pod */
    uint32_t addresses_count;
    bool is_ready; /* absent counts as ready */
    bool is_serving;
    bool is_terminating;
    struct bytes pod; /* targetRef.name when its kind is Pod */
    struct bytes node;
    struct bytes zone;
};

struct route_slice_port {
    struct bytes name; /* "" when absent */
    enum route_transport transport;
    uint16_t port; /* 0: all ports */
    struct bytes app_protocol;
};

enum route_address_type {
    ROUTE_ADDRESS_UNSUPPORTED, /* FQDN */
    ROUTE_ADDRESS_IPV4,
    ROUTE_ADDRESS_IPV6,
};

struct route_endpoint_slice {
    struct route_object object;
    struct bytes service; /* label kubernetes.io/service-name; absent: belongs to none */
    enum route_address_type address_type;
    const struct route_slice_endpoint *endpoints;
    uint32_t endpoints_count;
    const struct route_slice_port *ports;
    uint32_t ports_count;
};

/* ConfigMap: data. Secret: names of the keys only; nothing here needs the values, so they are not
 * kept in memory. */
struct route_data {
    struct route_object object;
    const struct route_label *data;
    uint32_t data_count;
};

/* ---- Policies of Gateway API ---- */

struct route_grant_from {
    struct bytes group;
    struct bytes kind;
    struct bytes namespace;
};

struct route_grant_to {
    struct bytes group;
    struct bytes kind;
    struct bytes name; /* absent: all of the kind */
};

struct route_reference_grant {
    struct route_object object;
    const struct route_grant_from *from;
    uint32_t from_count;
    const struct route_grant_to *to;
    uint32_t to_count;
};

/* matchLabels of a selector; a selector without labels selects everything of the namespace. */
struct route_selector {
    struct route_position position;
    const struct route_label *labels;
    uint32_t labels_count;
};

/* A target of any policy; name or, in our own kinds, selector. */
struct route_target_ref {
    struct route_position position;
    struct bytes group;
    struct bytes kind;
    struct bytes name;
    struct bytes section_name; /* name of a Service port */
    const struct route_selector *selector;
};

struct route_ca_ref {
    struct route_position position;
    struct bytes group;
    struct bytes kind;
    struct bytes namespace; /* defaulted to the policy's */
    struct bytes name;
};

enum route_san_type {
    ROUTE_SAN_UNSUPPORTED,
    ROUTE_SAN_HOSTNAME,
    ROUTE_SAN_URI,
};

struct route_san {
    struct route_position position;
    enum route_san_type type;
    struct bytes value;
};

struct route_backend_tls_policy {
    struct route_object object;
    const struct route_target_ref *target_refs;
    uint32_t target_refs_count;
    const struct route_ca_ref *ca_refs;
    uint32_t ca_refs_count;
    struct bytes well_known_ca;
    struct bytes hostname;
    const struct route_san *sans;
    uint32_t sans_count;
};

/* XBackendTrafficPolicy. */
struct route_traffic_policy {
    struct route_object object;
    const struct route_target_ref *target_refs;
    uint32_t target_refs_count;
    bool has_retry_constraint;
    uint32_t budget_percent;
    int64_t budget_interval_ms;
    uint32_t min_retries;
    int64_t min_retries_interval_ms; /* or ROUTE_DURATION_ABSENT */
    const struct route_session_persistence *session_persistence;
};

/* ---- Own kinds (group outrigger.dev) ---- */

enum route_mesh_mode {
    ROUTE_MESH_MODE_ABSENT,
    ROUTE_MESH_PERMISSIVE, /* inbound */
    ROUTE_MESH_STRICT,     /* inbound */
    ROUTE_MESH_DISABLED,   /* inbound and backend */
    ROUTE_MESH_ENABLED,    /* backend */
};

struct route_trust_domain {
    struct route_position position;
    struct bytes name;
    const struct route_ca_ref *ca_refs;
    uint32_t ca_refs_count;
};

struct route_mesh_parameters {
    struct route_object object;
    const struct route_trust_domain *trust_domains;
    uint32_t trust_domains_count;
    enum route_mesh_mode inbound;
    enum route_mesh_mode backend;
};

struct route_port_mode {
    struct route_position position;
    uint16_t port; /* of the container */
    enum route_mesh_mode mode;
};

struct route_mesh_tls_policy {
    struct route_object object;
    const struct route_target_ref *target_refs;
    uint32_t target_refs_count;
    enum route_mesh_mode inbound; /* absent unless the targets are Pods */
    const struct route_port_mode *inbound_ports;
    uint32_t inbound_ports_count;
    enum route_mesh_mode backend; /* absent unless the targets are Services */
    const struct route_san
        *sans; /* none: any service account of the Service's namespace in our trust domain */
    uint32_t sans_count;
};

enum route_source_type {
    ROUTE_SOURCE_UNSUPPORTED,
    ROUTE_SOURCE_SERVICE_ACCOUNT,
    ROUTE_SOURCE_SPIFFE,
};

struct route_source {
    struct route_position position;
    enum route_source_type type;
    struct bytes service_account; /* "*": all of the namespace */
    struct bytes namespace;       /* defaulted to the policy's */
    struct bytes spiffe;
};

struct route_authorization_rule {
    struct route_position position;
    struct bytes name;
    bool has_sources; /* false: any peer, plaintext too; true with none listed: nobody */
    const struct route_source *sources;
    uint32_t sources_count;
    const uint16_t *ports; /* none: every port */
    uint32_t ports_count;
    const struct route_http_match *http_matches;
    uint32_t http_matches_count;
    const struct route_grpc_match *grpc_matches;
    uint32_t grpc_matches_count;
};

struct route_authorization_policy {
    struct route_object object;
    const struct route_target_ref *target_refs;
    uint32_t target_refs_count;
    bool is_audit;
    const struct route_authorization_rule *rules;
    uint32_t rules_count;
};

enum route_body_value_type {
    ROUTE_BODY_UNSUPPORTED,
    ROUTE_BODY_EXACT,
    ROUTE_BODY_REGEX,
    ROUTE_BODY_PRESENT,
};

struct route_body_json {
    struct route_position position;
    struct bytes pointer; /* RFC 6901 */
    enum route_body_value_type type;
    struct bytes value;
};

struct route_body_form {
    struct route_position position;
    struct bytes name;
    enum route_body_value_type type;
    struct bytes value;
};

struct route_body_protobuf {
    struct route_position position;
    const uint32_t *path; /* field numbers from the message inwards */
    uint32_t path_count;
    struct bytes value;
};

/* One member is set; all entries within it must hold. */
struct route_body_alternative {
    struct route_position position;
    const struct route_body_json *json;
    uint32_t json_count;
    const struct route_body_form *form;
    uint32_t form_count;
    struct bytes json_rpc_method;
    bool is_graphql;
    struct bytes graphql_operation_name;
    struct bytes graphql_operation_type; /* "Query", "Mutation", "Subscription" or absent */
    const struct route_body_protobuf *protobuf;
    uint32_t protobuf_count;
};

struct route_body_match {
    struct route_object object;
    uint32_t bytes_max;
    const struct route_body_alternative *matches; /* any of them */
    uint32_t matches_count;
};

/* Hold an object beyond the set that it came from. Any thread. */
void route_object_ref(const struct route_object *object);

/* Let it go; the last one frees it. Any thread; accepts NULL. */
void route_object_unref(const struct route_object *object);

/* The name of a kind as the API writes it ("HTTPRoute"). */
const char *route_kind_name(enum route_kind kind);

/* Order of precedence between two objects of one kind: oldest first, then namespace/name. Like
 * memcmp. */
int route_object_compare_age(const struct route_object *a, const struct route_object *b);

/* ---- For decode.c ---- */

struct arena;

/*
 * Memory for an object of `size` bytes (zeroed) with one reference; `chunk_bytes` is how much it is
 * likely to need in all. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_object_create(size_t size, size_t chunk_bytes, struct route_object **ret_object,
                             struct arena **ret_arena);

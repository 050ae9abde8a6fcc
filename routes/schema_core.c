/*
 * Kubernetes' own kinds, as far as a sidecar reads them: Service, EndpointSlice, ConfigMap, Secret.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"

static const struct route_word transport_words[] = {{"TCP", ROUTE_TRANSPORT_TCP},
                                                    {"UDP", ROUTE_TRANSPORT_UDP},
                                                    {"SCTP", ROUTE_TRANSPORT_UNSUPPORTED},
                                                    {NULL, 0}};
static const struct route_word service_type_words[] = {
    {"ClusterIP", ROUTE_SERVICE_CLUSTER_IP},
    {"NodePort", ROUTE_SERVICE_NODE_PORT},
    {"LoadBalancer", ROUTE_SERVICE_LOAD_BALANCER},
    {"ExternalName", ROUTE_SERVICE_EXTERNAL_NAME},
    {NULL, 0},
};
static const struct route_word address_type_words[] = {{"IPv4", ROUTE_ADDRESS_IPV4},
                                                       {"IPv6", ROUTE_ADDRESS_IPV6},
                                                       {"FQDN", ROUTE_ADDRESS_UNSUPPORTED},
                                                       {NULL, 0}};

/* clusterIP and clusterIPs say the same; either may be missing in a file written by hand. */
static void read_cluster_ips(struct route_decoder *decoder, const struct route_node *node,
                             struct route_service_object *service)
{
    const struct route_node *list = route_node_find(node, "clusterIPs");
    struct bytes first = route_node_text(route_node_find(node, "clusterIP"));
    uint32_t most = 1 + (list != NULL && list->type == ROUTE_NODE_SEQUENCE ? list->count : 0);
    struct bytes *ips = route_decode_alloc(decoder, most, sizeof(*ips));
    if (ips == NULL) {
        return;
    }
    uint32_t count = 0;
    if (bytes_is(first, "None")) {
        service->is_headless = true;
    } else if (first.size > 0) {
        ips[count++] = first;
    }
    const struct route_node *item =
        list != NULL && list->type == ROUTE_NODE_SEQUENCE ? list->first : NULL;
    for (; item != NULL; item = item->next) {
        struct bytes ip = route_node_text(item);
        if (bytes_is(ip, "None")) {
            service->is_headless = true;
        } else if (ip.size > 0 && !bytes_equal(ip, first)) {
            ips[count++] = ip;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ips[i] = arena_copy(decoder->arena, ips[i]);
        decoder->is_out_of_memory = decoder->is_out_of_memory || ips[i].data == NULL;
    }
    service->cluster_ips = ips;
    service->cluster_ips_count = count;
}

static void check_service(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    struct route_service_object *service = object;
    read_cluster_ips(decoder, node, service);
    const struct route_node *selector = route_node_find(node, "selector");
    service->has_selector = !route_node_is_null(selector) && selector->count > 0;
    service->has_session_affinity =
        bytes_is(route_node_text(route_node_find(node, "sessionAffinity")), "ClientIP");
}

/* targetPort is a number or the name of a container's port. */
static void check_service_port(struct route_decoder *decoder, const struct route_node *node,
                               void *object)
{
    struct route_service_port *port = object;
    const struct route_node *target = route_node_find(node, "targetPort");
    struct bytes text = route_node_text(target);
    uint64_t number = 0;
    if (route_node_is_null(target)) {
        return;
    }
    if (target->is_plain && !error_is(bytes_parse_decimal(text, UINT16_MAX, &number))) {
        port->target_port = (uint16_t)number;
    } else if (text.size > 0 && text.size <= 15) {
        port->target_port_name = arena_copy(decoder->arena, text);
    } else {
        route_decode_fail(decoder, target, "invalid-value",
                          "targetPort must be a port number or the name of a container port");
    }
}

/* A truth value within a mapping: absent, true or false. */
static bool read_flag(const struct route_node *node, const char *name, bool absent)
{
    const struct route_node *flag = route_node_find(node, name);
    if (route_node_is_null(flag)) {
        return absent;
    }
    return bytes_is(route_node_text(flag), "true");
}

static void check_slice_endpoint(struct route_decoder *decoder, const struct route_node *node,
                                 void *object)
{
    struct route_slice_endpoint *endpoint = object;
    const struct route_node *conditions = route_node_find(node, "conditions");
    endpoint->is_ready = read_flag(conditions, "ready", true);
    endpoint->is_serving = read_flag(conditions, "serving", endpoint->is_ready);
    endpoint->is_terminating = read_flag(conditions, "terminating", false);
    const struct route_node *target = route_node_find(node, "targetRef");
    struct bytes name = route_node_text(route_node_find(target, "name"));
    if (bytes_is(route_node_text(route_node_find(target, "kind")), "Pod") && name.size > 0) {
        endpoint->pod = arena_copy(decoder->arena, name);
    }
}

static void check_slice(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_endpoint_slice *slice = object;
    const struct route_node *labels = route_node_find(route_node_find(node, "metadata"), "labels");
    struct bytes service = route_node_text(route_node_find(labels, "kubernetes.io/service-name"));
    if (service.size > 0) {
        slice->service = arena_copy(decoder->arena, service);
    }
}

/* ---- Tables ---- */

/* clang-format off */

static const struct route_field service_port_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_service_port, name), .max = 63},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_service_port, transport), .words = transport_words, .default_text = "TCP"},
    {FIELD_PORT(route_service_port, port), .is_required = true},
    {"targetPort", ROUTE_FIELD_CHECKED, NOWHERE},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_service_port, app_protocol), .max = 253},
};
static const struct route_type service_port_type = {"port", sizeof(struct route_service_port), true, true, service_port_fields, COUNT(service_port_fields), check_service_port};

static const struct route_field service_spec_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_service_object, type), .words = service_type_words, .default_text = "ClusterIP"},
    {"clusterIP", ROUTE_FIELD_CHECKED, NOWHERE},
    {"clusterIPs", ROUTE_FIELD_CHECKED, NOWHERE},
    {"selector", ROUTE_FIELD_CHECKED, NOWHERE},
    {"sessionAffinity", ROUTE_FIELD_CHECKED, NOWHERE},
    {"ports", ROUTE_FIELD_LIST, LIST_AT(route_service_object, ports), .max = 65535, .of = &service_port_type},
};
static const struct route_type service_spec_type = {"spec", sizeof(struct route_service_object), false, true, service_spec_fields, COUNT(service_spec_fields), check_service};

static const struct route_field service_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"spec", ROUTE_FIELD_INLINE, NOWHERE, .of = &service_spec_type, .is_required = true},
    {"status", ROUTE_FIELD_IGNORED, NOWHERE},
};
const struct route_type route_type_service = {"Service", sizeof(struct route_service_object), false, false, service_fields, COUNT(service_fields), NULL};

static const struct route_field slice_endpoint_fields[] = {
    {"addresses", ROUTE_FIELD_STRINGS, LIST_AT(route_slice_endpoint, addresses), .min = 1, .max = 100, .is_required = true},
    {"conditions", ROUTE_FIELD_CHECKED, NOWHERE},
    {"targetRef", ROUTE_FIELD_CHECKED, NOWHERE},
    {"nodeName", ROUTE_FIELD_STRING, AT(route_slice_endpoint, node), .max = 253},
    {"zone", ROUTE_FIELD_STRING, AT(route_slice_endpoint, zone), .max = 253},
};
static const struct route_type slice_endpoint_type = {"endpoint", sizeof(struct route_slice_endpoint), true, true, slice_endpoint_fields, COUNT(slice_endpoint_fields), check_slice_endpoint};

static const struct route_field slice_port_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_slice_port, name), .max = 63, .default_text = ""},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_slice_port, transport), .words = transport_words, .default_text = "TCP"},
    {"port", ROUTE_FIELD_INT, AT(route_slice_port, port), .max = 65535},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_slice_port, app_protocol), .max = 253},
};
static const struct route_type slice_port_type = {"port", sizeof(struct route_slice_port), false, true, slice_port_fields, COUNT(slice_port_fields), NULL};

static const struct route_field slice_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"addressType", ROUTE_FIELD_ENUM, AT(route_endpoint_slice, address_type), .words = address_type_words, .is_required = true},
    {"endpoints", ROUTE_FIELD_LIST, LIST_AT(route_endpoint_slice, endpoints), .max = 1000, .of = &slice_endpoint_type},
    {"ports", ROUTE_FIELD_LIST, LIST_AT(route_endpoint_slice, ports), .max = 100, .of = &slice_port_type},
};
const struct route_type route_type_slice = {"EndpointSlice", sizeof(struct route_endpoint_slice), false, true, slice_fields, COUNT(slice_fields), check_slice};

static const struct route_field config_map_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"data", ROUTE_FIELD_MAP, LIST_AT(route_data, data)},
};
const struct route_type route_type_config_map = {"ConfigMap", sizeof(struct route_data), false, true, config_map_fields, COUNT(config_map_fields), NULL};

static const struct route_field secret_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"data", ROUTE_FIELD_KEYS, LIST_AT(route_data, data)},
};
const struct route_type route_type_secret = {"Secret", sizeof(struct route_data), false, true, secret_fields, COUNT(secret_fields), NULL};

/* clang-format on */

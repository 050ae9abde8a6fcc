/*
 * Kubernetes' own kinds, as far as a sidecar reads them: Service, EndpointSlice, ConfigMap, Secret.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"
#include "routes/service.h"

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

enum {
    CLUSTER_IPS_MAX = 2,
    PORTS_COMPARED_MAX = 512, /* comparing is quadratic; nobody has as many */
};

/* ---- Service ---- */

/* An address, "None" or "" of clusterIP or clusterIPs; {NULL, 0} when it is none of an address. */
static struct bytes read_cluster_ip(struct route_decoder *decoder, const struct route_node *node,
                                    struct route_service_object *service)
{
    struct route_ip ip;
    struct bytes text = route_node_text(node);
    if (bytes_is(text, "None")) {
        service->is_headless = true;
        return (struct bytes){0};
    }
    if (route_node_is_null(node) || (node->type == ROUTE_NODE_SCALAR && text.size == 0)) {
        return (struct bytes){0};
    }
    if (error_is(route_ip_parse(text, &ip))) {
        route_decode_fail(decoder, node, "invalid-value",
                          "%s must be an IP address or None, not \"%s\"",
                          node->key == NULL ? "an item of clusterIPs" : node->key,
                          text.data == NULL ? "a list" : (const char *)text.data);
        return (struct bytes){0};
    }
    struct bytes copy = arena_copy(decoder->arena, text);
    decoder->is_out_of_memory = decoder->is_out_of_memory || copy.data == NULL;
    return copy;
}

/* clusterIP and clusterIPs say the same; either may be missing in a file written by hand. */
static void read_cluster_ips(struct route_decoder *decoder, const struct route_node *node,
                             struct route_service_object *service)
{
    const struct route_node *list = route_node_find(node, "clusterIPs");
    const struct route_node *item =
        list != NULL && list->type == ROUTE_NODE_SEQUENCE ? list->first : NULL;
    struct bytes *ips = route_decode_alloc(decoder, CLUSTER_IPS_MAX, sizeof(*ips));
    struct bytes first = read_cluster_ip(decoder, route_node_find(node, "clusterIP"), service);
    uint32_t count = 0;
    if (ips == NULL) {
        return;
    }
    if (first.data != NULL) {
        ips[count++] = first;
    }
    if (item != NULL && first.data != NULL && !bytes_equal(route_node_text(item), first)) {
        route_decode_fail(decoder, item, "invalid-value",
                          "the first of clusterIPs must be the same as clusterIP");
        return;
    }
    for (; item != NULL; item = item->next) {
        struct bytes ip = read_cluster_ip(decoder, item, service);
        if (ip.data == NULL || bytes_equal(ip, first)) {
            continue;
        }
        if (count == CLUSTER_IPS_MAX) {
            route_decode_fail(decoder, item, "too-many", "clusterIPs must have at most 2");
            return;
        }
        ips[count++] = ip;
    }
    service->cluster_ips = ips;
    service->cluster_ips_count = count;
}

/* No two ports may have one name, or one number and protocol. */
static void check_ports(struct route_decoder *decoder, const struct route_node *node,
                        const struct route_service_object *service)
{
    const struct route_node *list = route_node_find(node, "ports");
    uint32_t count =
        service->ports_count < PORTS_COMPARED_MAX ? service->ports_count : PORTS_COMPARED_MAX;
    const struct route_node *item = list == NULL ? NULL : list->first;
    for (uint32_t i = 0; i < count && item != NULL; i++, item = item->next) {
        const struct route_service_port *a = &service->ports[i];
        for (uint32_t j = 0; j < i; j++) {
            const struct route_service_port *b = &service->ports[j];
            if (a->name.size > 0 && bytes_equal(a->name, b->name)) {
                route_decode_fail(decoder, item, "duplicate-item",
                                  "ports[%u] and [%u] have the same name \"%s\"", j, i,
                                  (const char *)a->name.data);
                return;
            }
            if (a->port == b->port && a->transport == b->transport) {
                route_decode_fail(decoder, item, "duplicate-item",
                                  "ports[%u] and [%u] have the same port and protocol", j, i);
                return;
            }
        }
        if (service->ports_count > 1 && a->name.size == 0) {
            route_decode_warn(decoder, item, "port-unnamed", NULL,
                              "of several ports each needs a name: an API server refuses this");
        }
    }
}

/* Labels that select: text with the form of label values. */
static void check_selector(struct route_decoder *decoder, const struct route_node *selector)
{
    if (route_node_is_null(selector)) {
        return;
    }
    if (selector->type != ROUTE_NODE_MAPPING) {
        route_decode_fail(decoder, selector, "wrong-type", "selector must be a mapping");
        return;
    }
    route_decode_labels(decoder, selector);
}

static void check_service(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    struct route_service_object *service = object;
    read_cluster_ips(decoder, node, service);
    const struct route_node *selector = route_node_find(node, "selector");
    check_ports(decoder, node, service);
    check_selector(decoder, selector);
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
    if (target->is_plain && !error_is(bytes_parse_decimal(text, UINT16_MAX, &number)) &&
        number > 0) {
        port->target_port = (uint16_t)number;
    } else if (target->type == ROUTE_NODE_SCALAR &&
               route_text_has_form(text, ROUTE_TEXT_PORT_NAME)) {
        port->target_port_name = arena_copy(decoder->arena, text);
    } else {
        route_decode_fail(decoder, target, "invalid-value",
                          "targetPort must be 1 to 65535 without quotes, or %s",
                          route_text_form_name(ROUTE_TEXT_PORT_NAME));
    }
}

/* ---- EndpointSlice ---- */

/* A truth value within a mapping: absent, true or false. */
static bool read_flag(struct route_decoder *decoder, const struct route_node *node,
                      const char *name, bool absent)
{
    const struct route_node *flag = route_node_find(node, name);
    struct bytes text = route_node_text(flag);
    if (route_node_is_null(flag)) {
        return absent;
    }
    bool is_true = flag->is_plain && bytes_equal_nocase(text, BYTES("true"));
    if (!is_true && !(flag->is_plain && bytes_equal_nocase(text, BYTES("false")))) {
        route_decode_fail(decoder, flag, "wrong-type", "conditions.%s must be true or false", name);
    }
    return is_true;
}

static void check_slice_endpoint(struct route_decoder *decoder, const struct route_node *node,
                                 void *object)
{
    struct route_slice_endpoint *endpoint = object;
    const struct route_node *conditions = route_node_find(node, "conditions");
    endpoint->is_ready = read_flag(decoder, conditions, "ready", true);
    endpoint->is_serving = read_flag(decoder, conditions, "serving", endpoint->is_ready);
    endpoint->is_terminating = read_flag(decoder, conditions, "terminating", false);
    const struct route_node *target = route_node_find(node, "targetRef");
    struct bytes name = route_node_text(route_node_find(target, "name"));
    if (bytes_is(route_node_text(route_node_find(target, "kind")), "Pod") && name.size > 0) {
        endpoint->pod = arena_copy(decoder->arena, name);
    }
}

/* Every address must be one of the slice's family. */
static void check_addresses(struct route_decoder *decoder, const struct route_node *node,
                            enum route_address_type type)
{
    const struct route_node *endpoints = route_node_find(node, "endpoints");
    const struct route_node *endpoint =
        route_node_is_null(endpoints) || type == ROUTE_ADDRESS_UNSUPPORTED ? NULL
                                                                           : endpoints->first;
    bool is_ipv4 = type == ROUTE_ADDRESS_IPV4;
    for (; endpoint != NULL; endpoint = endpoint->next) {
        const struct route_node *addresses = route_node_find(endpoint, "addresses");
        for (const struct route_node *address = addresses->first; address != NULL;
             address = address->next) {
            struct route_ip ip;
            struct bytes text = route_node_text(address);
            bool has_colon = bytes_find(text, ':') != text.size;
            if (error_is(route_ip_parse(text, &ip)) || has_colon == is_ipv4) {
                route_decode_fail(decoder, address, "invalid-value",
                                  "must be an %s address, not \"%s\"", is_ipv4 ? "IPv4" : "IPv6",
                                  address->text);
            }
        }
    }
}

static void check_slice_ports(struct route_decoder *decoder, const struct route_node *node,
                              const struct route_endpoint_slice *slice)
{
    for (uint32_t i = 1; i < slice->ports_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (bytes_equal(slice->ports[i].name, slice->ports[j].name)) {
                route_decode_fail(decoder, route_node_find(node, "ports"), "duplicate-item",
                                  "ports[%u] and [%u] have the same name \"%s\"", j, i,
                                  (const char *)slice->ports[i].name.data);
                return;
            }
        }
    }
}

static void check_slice(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_endpoint_slice *slice = object;
    check_addresses(decoder, node, slice->address_type);
    check_slice_ports(decoder, node, slice);
    const struct route_node *labels = route_node_find(route_node_find(node, "metadata"), "labels");
    struct bytes service = route_node_text(route_node_find(labels, "kubernetes.io/service-name"));
    if (service.size > 0) {
        slice->service = arena_copy(decoder->arena, service);
    }
}

/* ---- Tables ---- */

/* clang-format off */

static const struct route_field service_port_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_service_port, name), .max = 63, .form = ROUTE_TEXT_LABEL_OR_EMPTY},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_service_port, transport), .words = transport_words, .default_text = "TCP"},
    {FIELD_PORT(route_service_port, port), .is_required = true},
    {"targetPort", ROUTE_FIELD_CHECKED, NOWHERE},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_service_port, app_protocol), .form = ROUTE_TEXT_QUALIFIED},
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
    {"name", ROUTE_FIELD_STRING, AT(route_slice_port, name), .max = 63, .form = ROUTE_TEXT_LABEL_OR_EMPTY, .default_text = ""},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_slice_port, transport), .words = transport_words, .default_text = "TCP"},
    {"port", ROUTE_FIELD_INT, AT(route_slice_port, port), .max = 65535},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_slice_port, app_protocol), .form = ROUTE_TEXT_QUALIFIED},
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

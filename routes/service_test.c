/* Services: what was dialled, endpoints of one pod, protocols, and two Services that claim one
 * address. */
#include "routes/service.h"

#include <criterion/criterion.h>

static struct arena arena;
static struct route_diagnostics diagnostics;

static void begin(void)
{
    arena_init(&arena, 16384, 1 << 24);
    route_diagnostics_init(&diagnostics);
}

static void end(void)
{
    route_diagnostics_finish(&diagnostics);
    arena_finish(&arena);
}

static struct route_object object_of(enum route_kind kind, struct bytes name, int64_t created)
{
    return (struct route_object){
        .kind = kind, .namespace = BYTES("shop"), .name = name, .created = created};
}

static struct route_ip ip_of(const char *text)
{
    struct route_ip ip;
    cr_assert_not(error_is(route_ip_parse(bytes_from_string(text), &ip)), "%s", text);
    return ip;
}

static const struct route_services *build(const struct route_object *const *objects, uint32_t count)
{
    struct route_services *services = NULL;
    cr_assert_not(error_is(route_services_build(objects, count, &arena, &diagnostics, &services)));
    return services;
}

static const struct route_service_port web_ports[] = {
    {.name = BYTES_LITERAL("http-web"),
     .transport = ROUTE_TRANSPORT_TCP,
     .port = 80,
     .target_port = 8080},
    {.name = BYTES_LITERAL("dns"), .transport = ROUTE_TRANSPORT_UDP, .port = 80},
};
static const struct bytes web_ips[] = {BYTES_LITERAL("10.0.0.1"), BYTES_LITERAL("fd00::1")};

Test(service, finds_what_was_dialled, .init = begin, .fini = end)
{
    struct route_service_object web = {.object = object_of(ROUTE_KIND_SERVICE, BYTES("web"), 5),
                                       .cluster_ips = web_ips,
                                       .cluster_ips_count = 2,
                                       .ports = web_ports,
                                       .ports_count = 2};
    const struct route_object *objects[] = {&web.object};
    const struct route_services *services = build(objects, 1);
    struct route_ip v4 = ip_of("10.0.0.1");
    struct route_ip v6 = ip_of("fd00::1");
    struct route_ip mapped = ip_of("::ffff:10.0.0.1");
    struct route_ip other = ip_of("10.0.0.2");
    const struct route_port *port =
        route_services_find_address(services, &v4, 80, ROUTE_TRANSPORT_TCP);
    cr_assert_not_null(port);
    cr_assert_eq(port->source, &web_ports[0]);
    cr_assert_eq(port->protocol, ROUTE_PROTOCOL_HTTP);
    cr_assert_eq(route_services_find_address(services, &v6, 80, ROUTE_TRANSPORT_TCP), port);
    cr_assert_eq(route_services_find_address(services, &mapped, 80, ROUTE_TRANSPORT_TCP), port);
    cr_assert_eq(route_services_find_address(services, &v4, 80, ROUTE_TRANSPORT_UDP)->source,
                 &web_ports[1]);
    cr_assert_null(route_services_find_address(services, &v4, 81, ROUTE_TRANSPORT_TCP));
    cr_assert_null(route_services_find_address(services, &other, 80, ROUTE_TRANSPORT_TCP));
    cr_assert_eq(route_services_find_ip(services, &v6), port->service);
    cr_assert_null(route_services_find_ip(services, &other));
    cr_assert_eq(route_services_find(services, BYTES("shop"), BYTES("web")), port->service);
    cr_assert_null(route_services_find(services, BYTES("shop"), BYTES("we")));
    cr_assert(bytes_equal(port->service->reference, BYTES("shop/web")));
    cr_assert_not(port->service->has_slices);
    cr_assert_eq(route_service_port_find(port->service, 80, ROUTE_TRANSPORT_UDP)->source,
                 &web_ports[1]);
}

Test(service, joins_the_addresses_of_one_pod_and_leaves_unready_ones_out, .init = begin,
     .fini = end)
{
    static const struct bytes a4[] = {BYTES_LITERAL("10.1.0.1")};
    static const struct bytes b4[] = {BYTES_LITERAL("10.1.0.2")};
    static const struct bytes a6[] = {BYTES_LITERAL("fd01::1")};
    static const struct bytes bad[] = {BYTES_LITERAL("not-an-address")};
    const struct route_slice_endpoint of_v4[] = {
        {.addresses = a4, .addresses_count = 1, .is_ready = true, .pod = BYTES("a")},
        {.addresses = b4, .addresses_count = 1, .is_ready = false, .pod = BYTES("b")},
        {.addresses = a4, .addresses_count = 1, .is_ready = true, .pod = BYTES("a")},
        {.addresses = bad, .addresses_count = 1, .is_ready = true},
    };
    const struct route_slice_endpoint of_v6[] = {
        {.addresses = a6, .addresses_count = 1, .is_ready = true, .pod = BYTES("a")}};
    const struct route_slice_port ports[] = {
        {.name = BYTES("metrics"), .transport = ROUTE_TRANSPORT_TCP, .port = 9},
        {.name = BYTES("http-web"), .transport = ROUTE_TRANSPORT_TCP, .port = 8081}};
    struct route_service_object web = {.object = object_of(ROUTE_KIND_SERVICE, BYTES("web"), 5),
                                       .cluster_ips = web_ips,
                                       .cluster_ips_count = 1,
                                       .ports = web_ports,
                                       .ports_count = 2};
    struct route_endpoint_slice v4 = {.object =
                                          object_of(ROUTE_KIND_ENDPOINT_SLICE, BYTES("web-1"), 5),
                                      .service = BYTES("web"),
                                      .address_type = ROUTE_ADDRESS_IPV4,
                                      .endpoints = of_v4,
                                      .endpoints_count = 4,
                                      .ports = ports,
                                      .ports_count = 2};
    struct route_endpoint_slice v6 = {.object =
                                          object_of(ROUTE_KIND_ENDPOINT_SLICE, BYTES("web-2"), 5),
                                      .service = BYTES("web"),
                                      .address_type = ROUTE_ADDRESS_IPV6,
                                      .endpoints = of_v6,
                                      .endpoints_count = 1,
                                      .ports = ports,
                                      .ports_count = 2};
    const struct route_object *objects[] = {&v6.object, &web.object, &v4.object};
    const struct route_services *services = build(objects, 3);
    const struct route_service *service = route_services_at(services, 0);
    cr_assert(service->has_slices);
    const struct route_port *port = &service->ports[0];
    cr_assert_eq(port->endpoints_count, 1);
    cr_assert_eq(port->endpoints[0].addresses_count, 2);
    cr_assert_eq(port->endpoints[0].port, 8081);
    cr_assert_eq(service->ports[1].endpoints_count, 0);
    cr_assert_gt(diagnostics.warnings_count, 0);
    struct route_ip pod = ip_of("fd01::1");
    struct route_endpoint_owner owners[2];
    cr_assert_eq(route_services_find_endpoint(services, &pod, 8081, owners, 2), 1);
    cr_assert_eq(owners[0].port, port);
    cr_assert_eq(owners[0].endpoint, &port->endpoints[0]);
    cr_assert_eq(route_services_find_endpoint(services, &pod, 9, owners, 2), 0);
}

Test(service, gives_a_disputed_address_to_the_older_service, .init = begin, .fini = end)
{
    struct route_service_object old = {.object = object_of(ROUTE_KIND_SERVICE, BYTES("zz-old"), 1),
                                       .cluster_ips = web_ips,
                                       .cluster_ips_count = 1,
                                       .ports = web_ports,
                                       .ports_count = 1};
    struct route_service_object young = {
        .object = object_of(ROUTE_KIND_SERVICE, BYTES("aa-young"), ROUTE_CREATED_ABSENT),
        .cluster_ips = web_ips,
        .cluster_ips_count = 1,
        .ports = web_ports,
        .ports_count = 1};
    const struct route_object *objects[] = {&young.object, &old.object};
    const struct route_services *services = build(objects, 2);
    struct route_ip v4 = ip_of("10.0.0.1");
    cr_assert_eq(
        route_services_find_address(services, &v4, 80, ROUTE_TRANSPORT_TCP)->service->object, &old);
    cr_assert_eq(route_services_find_ip(services, &v4)->object, &old);
    cr_assert_eq(diagnostics.warnings_count, 1);
}

Test(service, knows_the_declared_protocols)
{
    static const struct {
        const char *name;
        const char *app_protocol;
        enum route_protocol protocol;
    } cases[] = {
        {"web", NULL, ROUTE_PROTOCOL_UNDECLARED},
        {"http", NULL, ROUTE_PROTOCOL_HTTP},
        {"http-web", NULL, ROUTE_PROTOCOL_HTTP},
        {"httpweb", NULL, ROUTE_PROTOCOL_UNDECLARED},
        {"http2-x", NULL, ROUTE_PROTOCOL_HTTP2},
        {"grpc", NULL, ROUTE_PROTOCOL_GRPC},
        {"tcp-db", NULL, ROUTE_PROTOCOL_TCP},
        {"https", NULL, ROUTE_PROTOCOL_HTTPS},
        {"http", "TCP", ROUTE_PROTOCOL_TCP},
        {"x", "kubernetes.io/H2C", ROUTE_PROTOCOL_HTTP2},
        {"x", "kubernetes.io/ws", ROUTE_PROTOCOL_HTTP},
        {"x", "kubernetes.io/wss", ROUTE_PROTOCOL_WSS},
        {"x", "tls", ROUTE_PROTOCOL_TLS},
        {"http", "example.com/own", ROUTE_PROTOCOL_UNDECLARED},
        {"http", "http-web", ROUTE_PROTOCOL_UNDECLARED},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin();
        struct route_service_port port = {.name = bytes_from_string(cases[i].name),
                                          .transport = ROUTE_TRANSPORT_TCP,
                                          .port = 1,
                                          .app_protocol = bytes_from_string(cases[i].app_protocol)};
        struct route_service_object web = {.object = object_of(ROUTE_KIND_SERVICE, BYTES("web"), 5),
                                           .ports = &port,
                                           .ports_count = 1};
        const struct route_object *objects[] = {&web.object};
        const struct route_services *services = build(objects, 1);
        cr_expect_eq(route_services_at(services, 0)->ports[0].protocol, cases[i].protocol, "%s %s",
                     cases[i].name, cases[i].app_protocol);
        end();
    }
    cr_assert(route_protocol_is_opaque(ROUTE_PROTOCOL_WSS));
    cr_assert_not(route_protocol_is_opaque(ROUTE_PROTOCOL_GRPC));
}

Test(service, reports_every_failed_allocation, .init = begin, .fini = end)
{
    struct route_service_object web = {.object = object_of(ROUTE_KIND_SERVICE, BYTES("web"), 5),
                                       .cluster_ips = web_ips,
                                       .cluster_ips_count = 2,
                                       .ports = web_ports,
                                       .ports_count = 2};
    const struct route_object *objects[] = {&web.object};
    for (uint32_t n = 1; n < 100; n++) {
        struct route_services *services = NULL;
        arena_fail_after(&arena, n);
        struct error error = route_services_build(objects, 1, &arena, &diagnostics, &services);
        if (!error_is(error)) {
            cr_assert_gt(n, 5);
            return;
        }
        cr_assert_eq(error.code, ERROR_NO_MEMORY);
        cr_assert_null(services);
    }
    cr_assert_fail("it never succeeds");
}

/* A reload on top of what was there is a load from nothing, only cheaper. */
#include "routes/reload_random.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "routes/scratch_test.h"

enum {
    SEEDS = OUTRIGGER_TEST_DIVISOR > 6 ? 2 : 12 / OUTRIGGER_TEST_DIVISOR,
    STEPS = 120,
    RELOADS = 1000 / OUTRIGGER_TEST_DIVISOR,
    ROUTES = 40,
};

Test(reload, says_and_is_the_same_as_a_load_from_nothing)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_sec;
    (void)fprintf(stderr, "seed %" PRIu64 ": %d x %d steps\n", seed, SEEDS, STEPS);
    struct reload_report sum = {0};
    for (uint64_t i = 0; i < SEEDS; i++) {
        struct reload_report report = reload_compare(seed + i, STEPS);
        cr_assert_eq(report.differences, 0, "seed %" PRIu64, seed + i);
        cr_assert_eq(report.steps, STEPS);
        sum.taken += report.taken;
        sum.files_shared += report.files_shared;
        sum.objects_shared += report.objects_shared;
        sum.tables_shared += report.tables_shared;
    }
    /* It proves nothing when little is taken or nothing is shared. */
    cr_assert_gt(sum.taken, SEEDS * STEPS / 4, "seed %" PRIu64 ": %" PRIu64, seed, sum.taken);
    cr_assert(sum.files_shared > 0 && sum.objects_shared > 0 && sum.tables_shared > 0,
              "seed %" PRIu64, seed);
}

/* Routes and their Services, each in two files; the route `changed` with another weight. */
static void write_routes(struct scratch *scratch, int changed, int weight)
{
    for (int file = 0; file < 2; file++) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        cr_assert_not_null(out);
        for (int i = file; i < ROUTES; i += 2) {
            (void)fprintf(
                out,
                "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {clusterIP: "
                "10.0.0.%d, ports: [{name: http, port: 80}]}\n---\napiVersion: "
                "gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r%d}\nspec:\n  "
                "parentRefs: [{group: '', kind: Service, name: s%d}]\n  rules: [{backendRefs: "
                "[{name: s%d, port: 80, weight: %d}]}]\n",
                i, i + 1, i, i, (i + 1) % ROUTES, i == changed ? weight : 100);
        }
        (void)fclose(out);
        scratch_write(scratch, file == 0 ? "a.yaml" : "b.yaml", text);
        free(text);
    }
}

Test(reload, holds_no_more_after_a_thousand_reloads)
{
    struct scratch scratch;
    size_t early = 0;
    scratch_init(&scratch);
    for (int i = 0; i <= RELOADS; i++) {
        write_routes(&scratch, i % ROUTES, 101 + i % 800);
        scratch_load(&scratch);
        cr_assert_not(error_is(scratch.error));
        if (i > 1) { /* the route that was changed before, and the one that is changed now */
            cr_assert_eq(route_config_stats(scratch.config).tables_compiled, 2, "reload %d", i);
        }
        if (i == RELOADS / 10) {
            early = mallinfo2().uordblks;
        }
    }
    /* A table and a parsed file hold what they were made of, and nothing else of their time. */
    size_t late = mallinfo2().uordblks;
    cr_assert_leq(late, early + early / 10, "%zu bytes early, %zu late", early, late);
    scratch_finish(&scratch);
}

Test(reload, follows_a_grant_that_comes_and_goes)
{
    static const char grant[] =
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, "
        "namespace: pay}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, "
        "namespace: default}]\n  to: [{group: '', kind: Service}]\n";
    struct scratch scratch;
    scratch_init(&scratch);
    scratch.options.require_reference_grants = true;
    scratch_write(
        &scratch, "a.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: "
        "[{port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: pay}\n"
        "spec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}\n---\napiVersion: "
        "gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: "
        "[{group: '', kind: Service, name: a}]\n  rules: [{backendRefs: [{name: b, namespace: pay, "
        "port: 80}]}]\n");
    for (int i = 0; i < 4; i++) {
        bool is_granted = i % 2 == 1;
        scratch_write(&scratch, "g.yaml", is_granted ? grant : "");
        scratch_load(&scratch);
        cr_assert_not(error_is(scratch.error));
        const struct route_rules *rules = scratch_port(&scratch, "default", "a", 80)->rules;
        cr_assert_eq(route_rules_at(rules, 0)->backends[0].fault,
                     is_granted ? ROUTE_BACKEND_VALID : ROUTE_BACKEND_NOT_PERMITTED, "load %d", i);
        cr_assert_eq(scratch_condition(&scratch, "r", NULL, "ResolvedRefs")->status, is_granted,
                     "load %d", i);
    }
    scratch_finish(&scratch);
}

/* The timer wheel, against a plain list as the model. */
#include "iouring/timer.h"

#include <criterion/criterion.h>

#define MS CLOCK_NS_PER_MS

struct watch {
    struct io_timer timer;
    uint64_t fired_ns; /* the run in which it fired; 0 = not */
    uint32_t fired_count;
};

static uint64_t run_ns;
static uint32_t fired_order[16];
static uint32_t fired_total;

static void on_timer(struct io_timer *timer)
{
    struct watch *watch = LIST_OWNER(timer, struct watch, timer);
    watch->fired_ns = run_ns;
    watch->fired_count++;
    fired_total++;
}

static void run(struct io_timers *timers, uint64_t now_ns)
{
    run_ns = now_ns;
    io_timers_run(timers, now_ns, UINT32_MAX);
}

static struct io_timers *make(uint64_t now_ns)
{
    struct io_timers *timers = NULL;
    cr_assert_not(error_is(io_timers_create(now_ns, &timers)));
    return timers;
}

Test(timer, fires_once_in_the_first_run_at_or_after_its_deadline)
{
    static const uint64_t spans_ns[] = {
        1,         MS - 1,    MS,        MS + 1,      63 * MS,          64 * MS, 65 * MS,
        4095 * MS, 4096 * MS, 4097 * MS, 262144 * MS, 3600000 * MS + 7, 5 * MS,  1000000 * MS};
    for (size_t i = 0; i < sizeof(spans_ns) / sizeof(spans_ns[0]); i++) {
        uint64_t start = 123456789;
        struct io_timers *timers = make(start);
        struct watch watch = {0};
        uint64_t deadline = start + spans_ns[i];
        io_timers_start(timers, &watch.timer, deadline, on_timer);
        uint64_t now = start;
        while (watch.fired_count == 0) {
            uint64_t next = io_timers_next(timers);
            cr_assert(io_timer_is_running(&watch.timer));
            cr_assert_gt(next, now, "the wheel makes progress");
            cr_assert_leq(next, deadline + MS - 1);
            now = next;
            run(timers, now);
        }
        cr_expect_geq(now, deadline);
        cr_expect_lt(now, deadline + MS);
        cr_expect_not(io_timer_is_running(&watch.timer));
        run(timers, now + 10 * MS);
        cr_expect_eq(watch.fired_count, 1);
        cr_expect_eq(io_timers_next(timers), CLOCK_NEVER);
        io_timers_destroy(timers);
    }
}

Test(timer, stops_restarts_and_takes_the_farthest_deadline)
{
    struct io_timers *timers = make(5 * MS);
    struct watch a = {0};
    struct watch b = {0};
    io_timers_stop(timers, &a.timer);
    io_timers_start(timers, &a.timer, CLOCK_NEVER, on_timer);
    io_timers_start(timers, &b.timer, 10 * MS, on_timer);
    io_timers_stop(timers, &b.timer);
    io_timers_stop(timers, &b.timer);
    run(timers, 20 * MS);
    cr_assert_eq(a.fired_count + b.fired_count, 0);
    io_timers_start(timers, &a.timer, 30 * MS, on_timer);
    cr_assert_eq(io_timers_next(timers), 30 * MS);
    io_timers_start(timers, &a.timer, 25 * MS, on_timer);
    cr_assert_eq(io_timers_next(timers), 25 * MS);
    run(timers, 40 * MS);
    cr_assert_eq(a.fired_count, 1);
    io_timers_start(timers, &a.timer, 0, on_timer); /* a past time: due at once */
    cr_assert_leq(io_timers_next(timers), 40 * MS);
    run(timers, 40 * MS);
    cr_assert_eq(a.fired_count, 2);
    io_timers_destroy(timers);
}

static struct io_timers *shared;
static struct watch shared_victim;

static void restart_in_the_past(struct io_timer *timer)
{
    on_timer(timer);
    io_timers_start(shared, timer, 1, restart_in_the_past);
}

static void stop_the_victim(struct io_timer *timer)
{
    on_timer(timer);
    io_timers_stop(shared, &shared_victim.timer);
}

Test(timer, callbacks_may_restart_themselves_and_stop_others)
{
    shared = make(0);
    struct watch forever = {0};
    struct watch killer = {0};
    io_timers_start(shared, &forever.timer, 10 * MS, restart_in_the_past);
    io_timers_start(shared, &killer.timer, 10 * MS, stop_the_victim);
    io_timers_start(shared, &shared_victim.timer, 10 * MS, on_timer);
    run(shared, 10 * MS);
    cr_assert_eq(forever.fired_count, 1, "a restart in the past waits for the next run");
    cr_assert_eq(killer.fired_count, 1);
    cr_assert_eq(shared_victim.fired_count, 0, "it was due in the same run and is stopped");
    run(shared, 10 * MS);
    cr_assert_eq(forever.fired_count, 2);
    io_timers_destroy(shared);
}

static void note_order(struct io_timer *timer)
{
    const struct watch *watch = LIST_OWNER(timer, struct watch, timer);
    fired_order[fired_total++] = watch->fired_count;
}

Test(timer, runs_at_most_max_and_keeps_the_rest_in_order)
{
    struct io_timers *timers = make(0);
    struct watch watches[5] = {0};
    for (uint32_t i = 0; i < 5; i++) {
        watches[i].fired_count = i; /* its name */
        io_timers_start(timers, &watches[i].timer, (i + 1) * 100 * MS, note_order);
    }
    io_timers_run(timers, 1000 * MS, 2);
    cr_assert_eq(fired_total, 2);
    cr_assert_leq(io_timers_next(timers), 1000 * MS);
    io_timers_run(timers, 1000 * MS, 9);
    cr_assert_eq(fired_total, 5);
    for (uint32_t i = 0; i < 5; i++) {
        cr_expect_eq(fired_order[i], i);
    }
    io_timers_destroy(timers);
}

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = (*state ^ (*state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

enum {
    MODEL_TIMERS = 64
};

struct model {
    uint64_t deadline_ns; /* 0: stopped */
    uint32_t fires;
};

static void check_against_model(struct watch *watches, struct model *model, uint64_t now,
                                uint64_t seed)
{
    for (uint32_t i = 0; i < MODEL_TIMERS; i++) {
        uint64_t tick = (model[i].deadline_ns + MS - 1) / MS;
        if (model[i].deadline_ns != 0 && tick <= now / MS) {
            model[i].fires++;
            model[i].deadline_ns = 0;
        }
        cr_assert_eq(watches[i].fired_count, model[i].fires, "seed %llu timer %u",
                     (unsigned long long)seed, i);
        cr_assert_eq(watches[i].timer.deadline_ns, model[i].deadline_ns, "seed %llu timer %u",
                     (unsigned long long)seed, i);
    }
}

Test(timer, agrees_with_a_plain_list_on_random_programs)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed;
        uint64_t now = next_random(&random) % (UINT64_C(1) << 50);
        struct io_timers *timers = make(now);
        struct watch watches[MODEL_TIMERS] = {0};
        struct model model[MODEL_TIMERS] = {0};
        for (uint32_t step = 0; step < 200; step++) {
            for (uint32_t change = 0; change < 4; change++) {
                uint32_t i = (uint32_t)(next_random(&random) % MODEL_TIMERS);
                if (next_random(&random) % 4 == 0) {
                    io_timers_stop(timers, &watches[i].timer);
                    model[i].deadline_ns = 0;
                } else {
                    uint64_t span = next_random(&random) >> (24 + next_random(&random) % 40);
                    model[i].deadline_ns = now + span;
                    io_timers_start(timers, &watches[i].timer, now + span, on_timer);
                }
            }
            uint64_t jump = next_random(&random) >> (26 + next_random(&random) % 38);
            uint64_t next = io_timers_next(timers);
            if (next_random(&random) % 2 == 0 && next != CLOCK_NEVER && next > now) {
                jump = next - now; /* the way the loop goes */
            }
            now += jump;
            run(timers, now);
            check_against_model(watches, model, now, seed);
        }
        io_timers_destroy(timers);
    }
}

/* A second thread that works beside its caller. A part of kernels.c, by way of inner_loop.h.
 *
 * Whoever first turns ASKED into something else does the work: on a busy machine, the caller need not wait for a helper that
 * does not get a core.
 */

enum { IDLE, ASKED, BUSY, ENDING };

/* It is made when it is first wanted. */
typedef struct {
    void (*work)(void *);
    void *argument;
    int32_t is_wanted, is_sleeping, state;
#ifdef HAS_THREADS
    pid_t maker; /* the process that has the thread; 0 before the first */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
#endif
} Helper;

#ifdef HAS_THREADS
enum { SPINS_AT_ONCE = 64 };
static const int64_t AWAKE_NS = 100000; /* about as long as a long batch is played: waking takes half of that */

/* Wait a little for another thread; after some time, let it have this core. */
INLINE void rest(int *spins) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    if (*spins < 1000)
        ++*spins;
    else
        sched_yield();
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Wait while the state is one of two: awake for a while, then asleep. */
static int32_t wait_while(Helper *helper, int32_t unwanted, int32_t other) {
    int64_t until = now_ns() + AWAKE_NS;
    do {
        for (int i = 0; i < SPINS_AT_ONCE; i++) {
            int32_t state = __atomic_load_n(&helper->state, __ATOMIC_ACQUIRE);
            if (state != unwanted && state != other) return state;
            int spins = 0;
            rest(&spins);
        }
    } while (now_ns() < until);
    int32_t state;
    pthread_mutex_lock(&helper->lock);
    __atomic_add_fetch(&helper->is_sleeping, 1, __ATOMIC_SEQ_CST);
    while ((state = __atomic_load_n(&helper->state, __ATOMIC_SEQ_CST)) == unwanted || state == other)
        pthread_cond_wait(&helper->changed, &helper->lock);
    __atomic_sub_fetch(&helper->is_sleeping, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&helper->lock);
    return state;
}

/* Set the state, and wake who sleeps. */
static void tell(Helper *helper, int32_t state) {
    __atomic_store_n(&helper->state, state, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&helper->is_sleeping, __ATOMIC_SEQ_CST)) return;
    pthread_mutex_lock(&helper->lock);
    pthread_cond_broadcast(&helper->changed);
    pthread_mutex_unlock(&helper->lock);
}

/* Whether the caller is the one who takes what was asked for. */
static int takes(Helper *helper, int32_t next) {
    int32_t asked = ASKED;
    return __atomic_compare_exchange_n(&helper->state, &asked, next, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void *help(void *opened) {
    Helper *helper = opened;
    for (;;) {
        /* BUSY is of its own making: it never finds that here. */
        int32_t state = wait_while(helper, IDLE, IDLE);
        if (state == ENDING) return NULL;
        if (!takes(helper, BUSY)) continue;
        helper->work(helper->argument);
        tell(helper, IDLE);
    }
}

/* To be called before the others: a process that was forked off has no such thread. */
static void find_helper(Helper *helper) {
    if (helper->maker != getpid()) helper->maker = 0, helper->state = IDLE, helper->is_sleeping = 0;
}

/* Whether there is one that need not be woken. */
static int is_awake(Helper *helper) {
    return helper->maker && !__atomic_load_n(&helper->is_sleeping, __ATOMIC_RELAXED);
}

/* Ask it to work, making it first if need be. Returns whether there is one, awake or not; without, the caller does all. */
static int ask(Helper *helper) {
    if (!helper->is_wanted) return 0;
    if (!helper->maker) {
        if (pthread_mutex_init(&helper->lock, NULL) || pthread_cond_init(&helper->changed, NULL))
            return helper->is_wanted = 0;
        sigset_t all, before; /* signals are for the other threads */
        sigfillset(&all), pthread_sigmask(SIG_SETMASK, &all, &before);
        helper->is_wanted = pthread_create(&helper->thread, NULL, help, helper) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!helper->is_wanted) return 0;
        helper->maker = getpid();
    }
    tell(helper, ASKED);
    return 1;
}

static void end_helper(Helper *helper) {
    if (helper->maker == 0 || helper->maker != getpid()) return;
    tell(helper, ENDING);
    pthread_join(helper->thread, NULL);
    pthread_cond_destroy(&helper->changed), pthread_mutex_destroy(&helper->lock);
}

/* Take back what was asked for, or wait until it is done. Returns whether the helper has done it. */
static int is_helped(Helper *helper) {
    if (takes(helper, IDLE)) return 0;
    wait_while(helper, BUSY, ASKED);
    return 1;
}
#else
INLINE void rest(int *spins) { (void)spins; }
static void find_helper(Helper *helper) { (void)helper; }
static int is_awake(Helper *helper) { return (void)helper, 0; }
static int ask(Helper *helper) { return (void)helper, 0; }
static int is_helped(Helper *helper) { return (void)helper, 0; }
static void end_helper(Helper *helper) { (void)helper; }
#endif

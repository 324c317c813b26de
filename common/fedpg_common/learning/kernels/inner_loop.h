/* The server's variance-reduced steps on CartPole, all in one call. A part of kernels.c, which includes it at its end.
 *
 * What it computes is `variance_reduced_steps` of fedpg_server/learning/algorithms/inner_loop.py, bit for bit. It is faster
 * for four reasons: no interpreter between the parts; the activations of acting are those of the gradient at the same
 * parameters, and are kept; at few episodes, where a step of the poles waits for one number after the other, an action is
 * decided by an approximation wherever that is far enough from the border for the exact one to be the same; and a second
 * thread, where there is a core for it, computes all that needs no advantages while a long batch is still being played.
 */

#include "second_thread.h"

enum { DRAWS_AT_ONCE = 128, WORDS = 8, OUTPUTS = 2, UNKNOWN = -1 };
enum { WAKE_FROM_ROWS = 512 }; /* of a batch: below, waking the helper would take longer than its work */

/* Poles are stepped by fours. Arrays with a number for each row have room for a last group that is not full, which is
 * written whole and then overwritten. */
enum { GROUP = 4 };
typedef double Doubles __attribute__((vector_size(GROUP * sizeof(double))));
typedef int64_t Choices __attribute__((vector_size(GROUP * sizeof(int64_t)))); /* -1 or 0 */
typedef struct {
    Doubles x, x_dot, angle, angle_dot, cosine, sine;
    Doubles x_dots[2], angle_dots[2]; /* the next ones, for either action */
} Poles;

/* Keep in step with _Call in inner_loop.py. */
typedef struct {
    int64_t steps;         /* inner steps to take at most */
    const uint32_t *words; /* (steps, 2, WORDS): the names, hashed, of each step's streams for episodes and actions */
    const float *rates, *corrections; /* (steps): Adam's, by the steps that this call has taken */
    const float *theta_0, *mu;        /* (d); mu may be NULL */
    float *theta, *m, *v;             /* (d): the state, which is changed */
    double ratio_low, ratio_high;
    float beta_1_rest, beta_2, beta_2_rest, epsilon;
    int32_t has_moved;        /* whether theta is another state than theta_0 */
    int32_t wants_snapshot;   /* without mu, too */
    int32_t is_aborted;       /* result: the last batch was dropped */
    int64_t *rows, *outcomes; /* results (steps): rows of each batch; whether a step was taken: 1, or left out: 0 */
    double *losses, *ratios;  /* results (steps) */
    float *directions;        /* result (steps, d): v of each step */
    float *snapshot;          /* result (d): the last batch's gradient at theta_0 */
} Call;

/* A gradient of a batch: at theta_n, and at theta_0, whose ratios are to the former. */
enum { NOW, BEFORE, SIDES };
typedef struct {
    Network network;
    Workspace space;
    /* of a batch's rows, with room for count * horizon */
    float *values[LAYERS_MAX + 1], *values_memory;
    float *log_probs, *ratios;
    float *scores, *derivatives; /* (blocks, OUTPUTS, GRADIENT_BLOCK) */
    float *gradient;             /* (d) */
} Side;

typedef struct {
    Side sides[SIDES];
    CartPole cart;
    int64_t count, horizon, room;
    int32_t has_time_baseline;
    double rounding;
    /* of a batch's rows, with room for count * horizon */
    float *uniforms, *borders, *advantages;
    int64_t *actions, *episodes, *starts; /* the last: the first row of each time step */
    double *to_go;          /* (horizon + 1): rewards-to-go, by the steps that are left */
    double *means, *scales; /* (horizon + 1): of an episode's, by its length; a scale is UNKNOWN before the first such */
    int64_t *lengths;       /* (count) */
    Poles *poles;  /* of each GROUP episodes that are alive */
    int64_t *live; /* (count): their numbers */
    /* What both threads look at while a batch goes on. */
    int32_t has_both;     /* gradients are wanted, not that at theta_n alone */
    int64_t played;       /* rows that are there */
    int64_t rows;         /* of the whole batch, once its advantages are there; until then UNKNOWN */
    int64_t taken;        /* blocks of rows that one of the threads prepares or has prepared */
    int32_t *is_prepared; /* (blocks) */
    Helper helper;
    int32_t is_asked; /* whether the helper has been asked to work on this batch: the caller alone looks at this */
} Loop;

static void follow(void *opened);

static void close_side(Side *side) {
    free(side->network.memory), free(side->values_memory), free(side->log_probs), free(side->ratios);
    free(side->scores), free(side->derivatives), free(side->gradient);
    close_workspace(&side->space);
}

/* Room for a gradient of `room` rows. Returns 0 without memory; what there is must be closed all the same. */
static int open_side(
    Side *side, int32_t layers, const int32_t *sizes, int32_t relu, const float *theta, size_t room, size_t inputs) {
    size_t factors = (room + GRADIENT_BLOCK - 1) / GRADIENT_BLOCK * GRADIENT_BLOCK * OUTPUTS;
    if (!open_network(&side->network, layers, sizes, relu, theta) || !open_workspace(&side->network, &side->space)) return 0;
    side->values_memory = open_values(&side->network, (int64_t)room, inputs, side->values);
    side->log_probs = zeros(room), side->ratios = zeros(room);
    side->scores = zeros(factors), side->derivatives = zeros(factors);
    side->gradient = zeros((size_t)side->network.parameters);
    return side->values_memory && side->log_probs && side->ratios && side->scores && side->derivatives && side->gradient;
}

EXPORT void fedpg_loop_close(void *opened) {
    Loop *loop = opened;
    if (loop == NULL) return;
    end_helper(&loop->helper);
    close_side(&loop->sides[NOW]), close_side(&loop->sides[BEFORE]);
    free(loop->uniforms), free(loop->borders), free(loop->advantages), free(loop->actions), free(loop->episodes);
    free(loop->starts), free(loop->to_go), free(loop->means), free(loop->scales), free(loop->lengths);
    free(loop->poles), free(loop->live), free(loop->is_prepared);
    free(loop);
}

/* Room for loops of `count` episodes, of a policy with OUTPUTS actions, with a helper if `threads` is more than 1. Returns
 * NULL without memory. */
EXPORT void *fedpg_loop_open(
    int32_t layers, const int32_t *sizes, int32_t relu, const float *theta, const double *physics, int64_t count,
    int64_t horizon, double gamma, double rounding, int32_t has_time_baseline, int32_t threads) {
    Loop *loop = calloc(1, sizeof(Loop));
    if (loop == NULL) return NULL;
    loop->cart = (CartPole){physics[0], physics[1], physics[2], physics[3], physics[4], physics[5]};
    loop->count = count, loop->horizon = horizon, loop->rounding = rounding;
    loop->has_time_baseline = has_time_baseline;
    loop->helper = (Helper){.work = follow, .argument = loop, .is_wanted = threads > 1};
    loop->room = count * horizon + GROUP - 1;
    size_t room = (size_t)loop->room, groups = (size_t)(count + GROUP - 1) / GROUP;
    int32_t is_done = open_side(&loop->sides[NOW], layers, sizes, relu, theta, room, room * (size_t)padded(sizes[0]));
    is_done = is_done && open_side(&loop->sides[BEFORE], layers, sizes, relu, theta, room, 0);
    loop->sides[BEFORE].values[0] = loop->sides[NOW].values[0]; /* the same inputs */
    loop->uniforms = zeros(room), loop->borders = zeros(room), loop->advantages = zeros(room);
    loop->actions = calloc(room, sizeof(int64_t)), loop->episodes = calloc(room, sizeof(int64_t));
    loop->starts = calloc((size_t)horizon + 1, sizeof(int64_t));
    loop->to_go = calloc((size_t)horizon + 1, sizeof(double)), loop->means = calloc((size_t)horizon + 1, sizeof(double));
    loop->scales = calloc((size_t)horizon + 1, sizeof(double)), loop->lengths = calloc((size_t)count + 1, sizeof(int64_t));
    loop->poles = (Poles *)zeros(groups * sizeof(Poles) / sizeof(float));
    loop->live = calloc(groups * GROUP, sizeof(int64_t));
    loop->is_prepared = calloc(room / GRADIENT_BLOCK + 1, sizeof(int32_t));
    is_done = is_done && loop->uniforms && loop->borders && loop->advantages && loop->actions && loop->episodes &&
              loop->starts && loop->to_go && loop->means && loop->scales && loop->lengths && loop->poles && loop->live &&
              loop->is_prepared;
    if (!is_done) {
        fedpg_loop_close(loop);
        return NULL;
    }
    for (size_t i = 0; i < room; i++) loop->sides[NOW].ratios[i] = 1.0f;
    for (int64_t left = 1; left <= horizon; left++)
        loop->to_go[left] = 1.0 + gamma * loop->to_go[left - 1], loop->scales[left] = UNKNOWN;
    return loop;
}

/* The last batch's observations (rows, 4), actions and episodes, for who looks at it. */
EXPORT void fedpg_loop_batch(const void *opened, int64_t rows, float *observations, int64_t *actions, int64_t *episodes) {
    const Loop *loop = opened;
    const Side *side = &loop->sides[NOW];
    for (int64_t r = 0; r < rows; r++)
        memcpy(observations + 4 * r, side->values[0] + r * side->network.strides[0], 4 * sizeof(float));
    memcpy(actions, loop->actions, (size_t)rows * sizeof(int64_t));
    memcpy(episodes, loop->episodes, (size_t)rows * sizeof(int64_t));
}

/* Random numbers ---------------------------------------------------------------------------------------------------- */

/* numpy's PCG64 hands out the halves of its 64 bits, the lower one first. */
typedef struct {
    Generator generator;
    uint32_t half;
    int has_half;
} Halves;

INLINE uint32_t next_half(Halves *source) {
    if (source->has_half) {
        source->has_half = 0;
        return source->half;
    }
    uint64_t bits = next_bits(&source->generator);
    source->half = (uint32_t)(bits >> 32), source->has_half = 1;
    return (uint32_t)bits;
}

/* As many of Generator.random(..., float32), and where the difference of the squashed logits has its border for each:
 * action 1 is taken where tanh(a) - tanh(b) <= ln(u / (1 - u)). */
INLINE void draw(Halves *source, int64_t count, float *uniforms, float *borders) {
    for (int64_t i = 0; i < count; i++) uniforms[i] = (float)(next_half(source) >> 8) * (1.0f / 16777216.0f);
    for (int64_t i = 0; i < count; i++) {
        float odds = uniforms[i] / (1.0f - uniforms[i]);
        borders[i] = odds < 1e-30f ? 1e-30f : odds;
    }
    all_log(count, borders, borders);
}

/* Sampling ---------------------------------------------------------------------------------------------------------- */

/* tanh to within 2e-4: a continued fraction, up to where it leaves that. Not a number stays that. */
INLINE Few roughly_tanh(Few x) {
    const Few limit = {4.9f, 4.9f, 4.9f, 4.9f};
    FewBits above = x > limit, below = x < -limit;
    Few bounded = (Few)((above & (FewBits)limit) | (below & (FewBits)-limit) | (~(above | below) & (FewBits)x));
    Few square = bounded * bounded;
    Few numerator = bounded * (135135.0f + square * (17325.0f + square * (378.0f + square)));
    Few denominator = 135135.0f + square * (62370.0f + square * (3150.0f + 28.0f * square));
    return numerator / denominator;
}

static const float BORDER_WIDTH = 2e-3f; /* many times what roughly_tanh and the roundings of `choose` may be off */

/* Actions of GROUP rows of two logits, `stride` apart, as `choose` draws them; -1 is the second one. Without a branch that
 * depends on a draw: half of them would be predicted wrongly. */
INLINE Choices decide(const float *logits, int64_t stride, const float *uniforms, const float *borders, int64_t *actions) {
    const float *second = logits + stride, *third = second + stride, *fourth = third + stride;
    Few border, minus = {logits[0], second[0], third[0], fourth[0]}, plus = {logits[1], second[1], third[1], fourth[1]};
    const Few zero = {0}, width = zero + BORDER_WIDTH;
    memcpy(&border, borders, sizeof border);
    Few beyond = roughly_tanh(minus) - roughly_tanh(plus) - border;
    FewBits is_second = beyond < zero, is_sure = (beyond > width) | (beyond < -width);
    Choices choices = __builtin_convertvector(is_second, Choices);
    if (!(is_sure[0] & is_sure[1] & is_sure[2] & is_sure[3])) { /* what is not a number is not sure either */
        for (int i = 0; i < GROUP; i++) {
            int64_t action;
            float dense[2] = {logits[i * stride], logits[i * stride + 1]};
            choose(1, 2, dense, uniforms + i, &action);
            choices[i] = -action;
        }
    }
    Choices numbers = choices & 1;
    memcpy(actions, &numbers, sizeof numbers);
    return choices;
}

/* Starts of episodes, as numpy and Gymnasium draw them: the seeds by Generator.integers(0, 2**31). */
INLINE void start_poles(int64_t count, const uint32_t *words, Poles *poles, int64_t *live) {
    Halves seeds = {seeded(words, WORDS), 0, 0};
    memset(poles, 0, (size_t)((count + GROUP - 1) / GROUP) * sizeof(Poles));
    for (int64_t i = 0; i < count; i++) {
        int64_t seed = next_half(&seeds) >> 1;
        double state[4];
        fedpg_cartpole_starts(1, &seed, state);
        Poles *group = poles + i / GROUP;
        group->x[i % GROUP] = state[0], group->x_dot[i % GROUP] = state[1];
        group->angle[i % GROUP] = state[2], group->angle_dot[i % GROUP] = state[3];
        group->cosine[i % GROUP] = c_cosine(state[2]), group->sine[i % GROUP] = c_sine(state[2]);
        live[i] = i;
    }
}

/* The states as rows of a network's inputs. */
INLINE void show(const Poles *poles, float *rows, int64_t stride) {
    Few x = __builtin_convertvector(poles->x, Few), x_dot = __builtin_convertvector(poles->x_dot, Few);
    Few angle = __builtin_convertvector(poles->angle, Few), angle_dot = __builtin_convertvector(poles->angle_dot, Few);
    for (int i = 0; i < GROUP; i++) {
        float *row = rows + i * stride;
        row[0] = x[i], row[1] = x_dot[i], row[2] = angle[i], row[3] = angle_dot[i];
    }
}

/* The speeds that cartpole_step gives for either action, which need not wait for the network. */
INLINE void speed_up(const CartPole *cart, Poles *poles) {
    const Doubles cosine = poles->cosine, sine = poles->sine, x_dot = poles->x_dot, angle_dot = poles->angle_dot;
    Doubles swing = cart->pole_mass_length * (angle_dot * angle_dot) * sine;
    Doubles inertia = cart->half_length * (4.0 / 3.0 - cart->pole_mass * (cosine * cosine) / cart->total_mass);
    for (int action = 0; action < 2; action++) {
        Doubles pull = ((action ? cart->force : -cart->force) + swing) / cart->total_mass;
        Doubles angle_acc = (cart->gravity * sine - cosine * pull) / inertia;
        Doubles x_acc = pull - cart->pole_mass_length * angle_acc * cosine / cart->total_mass;
        poles->x_dots[action] = x_dot + TIME_STEP_S * x_acc;
        poles->angle_dots[action] = angle_dot + TIME_STEP_S * angle_acc;
    }
}

/* Where cartpole_step takes them, which no action changes. Returns whether one of the first `alive` has fallen. */
INLINE int move(Poles *poles, int64_t alive) {
    poles->x += TIME_STEP_S * poles->x_dot, poles->angle += TIME_STEP_S * poles->angle_dot;
    int fallen = 0;
    for (int64_t i = 0; i < GROUP && i < alive; i++) {
        poles->cosine[i] = c_cosine(poles->angle[i]), poles->sine[i] = c_sine(poles->angle[i]);
        fallen |= has_fallen(poles->x[i], poles->angle[i]);
    }
    return fallen;
}

INLINE void choose_step(Poles *poles, Choices choices) {
    poles->x_dot = (Doubles)((choices & (Choices)poles->x_dots[1]) | (~choices & (Choices)poles->x_dots[0]));
    poles->angle_dot = (Doubles)((choices & (Choices)poles->angle_dots[1]) | (~choices & (Choices)poles->angle_dots[0]));
}

/* Close the ranks; returns how many of `alive` are left. What is behind them stands still. */
static int64_t drop_fallen(Poles *poles, int64_t alive, int64_t *live) {
    enum { KEPT = 6, EACH = sizeof(Poles) / sizeof(double) }; /* fields; numbers of a group */
    double *numbers = (double *)poles;
    int64_t surviving = 0;
    for (int64_t i = 0; i < alive; i++) {
        const double *from = numbers + i / GROUP * EACH + i % GROUP;
        if (has_fallen(poles[i / GROUP].x[i % GROUP], poles[i / GROUP].angle[i % GROUP])) continue;
        double *to = numbers + surviving / GROUP * EACH + surviving % GROUP;
        if (surviving != i)
            for (int field = 0; field < KEPT; field++) to[field * GROUP] = from[field * GROUP];
        live[surviving++] = live[i];
    }
    for (int64_t i = surviving; i < alive; i++)
        for (int field = 0; field < KEPT; field++) numbers[i / GROUP * EACH + i % GROUP + field * GROUP] = 0.0;
    return surviving;
}

/* Let the helper see the rows that have been played. */
INLINE void show_rows(Loop *loop, int64_t rows) {
    __atomic_store_n(&loop->played, rows, __ATOMIC_RELEASE);
    if (!loop->is_asked && (rows >= WAKE_FROM_ROWS || is_awake(&loop->helper))) loop->is_asked = ask(&loop->helper);
}

/* Episodes in lock-step with the network at theta_n, as fedpg_cartpole_rollout has them; its activations stay where they
 * are. Returns the rows. */
INLINE int64_t play(Loop *loop, const uint32_t *words) {
    const Side *side = &loop->sides[NOW];
    const Network *network = &side->network;
    const int32_t layers = network->layers;
    int64_t stride = network->strides[0], last_stride = network->strides[layers];
    int64_t most = loop->count * loop->horizon, alive = loop->count, rows = 0, drawn = 0, step = 0;
    Poles *poles = loop->poles;
    Halves source = {seeded(words + WORDS, WORDS), 0, 0};
    start_poles(alive, words, poles, loop->live);
    for (; step < loop->horizon && alive; step++) {
        int64_t groups = (alive + GROUP - 1) / GROUP;
        float *at[LAYERS_MAX + 1];
        for (int l = 0; l <= layers; l++) at[l] = side->values[l] + rows * network->strides[l];
        /* In this order, so that the processor finds work that waits for nothing while a layer's sums wait for each other. */
        for (int64_t g = 0; g < groups; g++) show(poles + g, at[0] + g * GROUP * stride, stride);
        for (int64_t g = 0; g < groups; g++) speed_up(&loop->cart, poles + g);
        forward_layers(network, 0, layers - 1, groups * GROUP, at[0], stride, at);
        int fallen = 0;
        for (int64_t g = 0; g < groups; g++) fallen |= move(poles + g, alive - g * GROUP);
        forward_layers(network, layers - 1, layers, groups * GROUP, at[layers - 1], network->strides[layers - 1], at);
        while (drawn < rows + alive) {
            int64_t some = most - drawn < DRAWS_AT_ONCE ? most - drawn : DRAWS_AT_ONCE;
            draw(&source, some, loop->uniforms + drawn, loop->borders + drawn);
            drawn += some;
        }
        for (int64_t g = 0; g < groups; g++) {
            int64_t first = rows + g * GROUP;
            Choices choices = decide(
                at[layers] + g * GROUP * last_stride, last_stride, loop->uniforms + first, loop->borders + first,
                loop->actions + first);
            choose_step(poles + g, choices);
            memcpy(loop->episodes + first, loop->live + g * GROUP, GROUP * sizeof(int64_t));
        }
        loop->starts[step] = rows, rows += alive;
        if (rows - loop->played >= GRADIENT_BLOCK) show_rows(loop, rows);
        if (fallen) alive = drop_fallen(poles, alive, loop->live);
    }
    loop->starts[step] = rows;
    return rows;
}

/* Mean and scale of the rewards-to-go of an episode of this length, in the order of fedpg_advantages. */
static void learn_length(Loop *loop, int64_t length) {
    double sum = 0.0, squares = 0.0;
    for (int64_t left = length; left > 0; left--) sum += loop->to_go[left];
    double mean = sum / (double)length;
    for (int64_t left = length; left > 0; left--) {
        double deviation = loop->to_go[left] - mean;
        squares += deviation * deviation;
    }
    loop->means[length] = mean, loop->scales[length] = whitening((double)length, mean, squares, loop->rounding);
}

/* fedpg_advantages, where every reward is 1: they depend on an episode's length and on how many of its steps are left. */
INLINE void whiten(Loop *loop, int64_t rows) {
    for (int64_t step = 0, r = 0; r < rows; step++)
        for (; r < loop->starts[step + 1]; r++) loop->lengths[loop->episodes[r]] = step + 1;
    for (int64_t i = 0; i < loop->count; i++)
        if (loop->scales[loop->lengths[i]] < 0.0) learn_length(loop, loop->lengths[i]);
    for (int64_t step = 0, r = 0; r < rows; step++) {
        for (; r < loop->starts[step + 1]; r++) {
            int64_t length = loop->lengths[loop->episodes[r]];
            loop->advantages[r] = (float)((loop->to_go[length - step] - loop->means[length]) * loop->scales[length]);
        }
    }
}

/* gradient.less_the_others: minus the mean of the other episodes at the same time. */
INLINE void take_others(const Loop *loop, int64_t rows) {
    float *values = loop->advantages;
    for (int64_t step = 0, start = 0; start < rows; step++) {
        int64_t end = loop->starts[step + 1];
        double sum = 0.0, others = (double)(end - start - 1);
        for (int64_t r = start; r < end; r++) sum += (double)values[r];
        for (int64_t r = start; r < end; r++) {
            double mean = others > 0.0 ? (sum - (double)values[r]) / others : 0.0;
            values[r] = (float)((double)values[r] - mean);
        }
        start = end;
    }
}

/* Steps ------------------------------------------------------------------------------------------------------------- */

INLINE int all_finite(int64_t count, const float *x) {
    int unusual = 0;
    for (int64_t i = 0; i < count; i++) unusual |= !(fabsf(x[i]) < INFINITY);
    return !unusual;
}

/* The outputs of some rows at theta_0, and their ratios. */
INLINE void prepare_before(Loop *loop, int64_t start, int64_t rows) {
    Side *side = &loop->sides[BEFORE];
    const Network *network = &side->network;
    const int32_t layers = network->layers;
    float *values[LAYERS_MAX + 1];
    for (int l = 0; l <= layers; l++) values[l] = side->values[l] + start * network->strides[l];
    forward(network, rows, values[0], network->strides[0], values);
    categorical_outputs(
        rows, OUTPUTS, values[layers], network->strides[layers], loop->actions + start, loop->sides[NOW].log_probs + start,
        side->scores + start * OUTPUTS, side->derivatives + start * OUTPUTS, side->log_probs + start, side->ratios + start);
}

/* Prepare the next block of rows for the gradients, up to what needs advantages: if it has been played, and no other thread
 * takes it. Returns whether. Blocks are whole until the number of rows is known. */
INLINE int prepare_next(Loop *loop) {
    int64_t block = __atomic_load_n(&loop->taken, __ATOMIC_RELAXED), start = block * GRADIENT_BLOCK;
    int64_t there = __atomic_load_n(&loop->rows, __ATOMIC_ACQUIRE);
    if (there == UNKNOWN) there = __atomic_load_n(&loop->played, __ATOMIC_ACQUIRE) / GRADIENT_BLOCK * GRADIENT_BLOCK;
    if (start >= there) return 0;
    if (!__atomic_compare_exchange_n(&loop->taken, &block, block + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return 0;
    int64_t rows = there - start < GRADIENT_BLOCK ? there - start : GRADIENT_BLOCK;
    Side *side = &loop->sides[NOW];
    int64_t stride = side->network.strides[side->network.layers];
    categorical_outputs(
        rows, OUTPUTS, side->values[side->network.layers] + start * stride, stride, loop->actions + start, NULL,
        side->scores + start * OUTPUTS, side->derivatives + start * OUTPUTS, side->log_probs + start, NULL);
    if (loop->has_both) prepare_before(loop, start, rows);
    __atomic_store_n(&loop->is_prepared[block], 1, __ATOMIC_RELEASE);
    return 1;
}

/* Add some prepared rows to a gradient. */
INLINE void add_rows_to(const Loop *loop, Side *side, int64_t start, int64_t rows, float scale) {
    const Network *network = &side->network;
    const int32_t layers = network->layers;
    float *values[LAYERS_MAX + 1];
    for (int l = 0; l <= layers; l++) values[l] = side->values[l] + start * network->strides[l];
    categorical_slopes(
        rows, OUTPUTS, side->scores + start * OUTPUTS, side->derivatives + start * OUTPUTS, loop->advantages + start,
        side->ratios + start, scale, side->space.slopes, network->strides[layers]);
    add_gradient(network, &side->space, rows, values);
}

/* The gradients of a batch from side `first` to before `end`. What nobody has prepared yet, whoever needs it first does. */
EXPORT FOR_EVERY_WIDTH void fedpg_loop_gradients(Loop *loop, int32_t first, int32_t end) {
    int64_t rows = loop->rows;
    float scale = (float)(-1.0 / (double)rows);
    for (int i = first; i < end; i++) memset(loop->sides[i].space.totals_memory, 0, loop->sides[i].space.totals_bytes);
    for (int64_t start = 0; start < rows; start += GRADIENT_BLOCK) {
        int64_t block = rows - start < GRADIENT_BLOCK ? rows - start : GRADIENT_BLOCK;
        int spins = 0;
        while (!__atomic_load_n(&loop->is_prepared[start / GRADIENT_BLOCK], __ATOMIC_ACQUIRE))
            if (!prepare_next(loop)) rest(&spins);
        for (int i = first; i < end; i++) add_rows_to(loop, &loop->sides[i], start, block, scale);
    }
    for (int i = first; i < end; i++) read_gradient(&loop->sides[i].network, &loop->sides[i].space, loop->sides[i].gradient);
}

/* What the helper does: prepare the rows while they are played, and then the gradient at theta_0. */
EXPORT FOR_EVERY_WIDTH void fedpg_loop_follow(Loop *loop) {
    int spins = 0;
    while (__atomic_load_n(&loop->rows, __ATOMIC_ACQUIRE) == UNKNOWN) {
        if (prepare_next(loop))
            spins = 0;
        else
            rest(&spins);
    }
    while (prepare_next(loop)) continue;
    if (loop->has_both) fedpg_loop_gradients(loop, BEFORE, SIDES);
}

/* For what is compiled before it: clang does not take a function for one of several widths once it was used. */
static void follow(void *opened) { fedpg_loop_follow(opened); }

/* Sample a batch, with its advantages. Returns its rows. */
INLINE int64_t sample(Loop *loop, const uint32_t *words, int has_both) {
    loop->has_both = has_both, loop->is_asked = 0, loop->played = 0, loop->rows = UNKNOWN, loop->taken = 0;
    memset(loop->is_prepared, 0, (size_t)(loop->room / GRADIENT_BLOCK + 1) * sizeof(int32_t));
    int64_t rows = play(loop, words);
    whiten(loop, rows);
    if (loop->has_time_baseline) take_others(loop, rows);
    __atomic_store_n(&loop->rows, rows, __ATOMIC_RELEASE);
    return rows;
}

/* Both gradients of the batch, or that at theta_n alone. Without a helper a block is read once for both. */
static void compute_gradients(Loop *loop) {
    fedpg_loop_gradients(loop, NOW, loop->has_both && !loop->is_asked ? SIDES : BEFORE);
    if (loop->is_asked && !is_helped(&loop->helper) && loop->has_both) fedpg_loop_gradients(loop, BEFORE, SIDES);
}

INLINE double loss_of(const Loop *loop, int64_t rows) {
    double sum = -0.0; /* to which the first is added without a change */
    for (int64_t r = 0; r < rows; r++) sum += (double)(loop->advantages[r] * loop->sides[NOW].log_probs[r]);
    return -sum / (double)rows;
}

INLINE double mean_ratio(const Loop *loop, int64_t rows) {
    double sum = 0.0;
    for (int64_t r = 0; r < rows; r++) sum += (double)loop->sides[BEFORE].ratios[r];
    return sum / (double)rows;
}

/* adam.adam_step; 0 and no change where a result would not be finite. */
INLINE int adam(const Call *call, int64_t d, const float *g, int64_t taken, float *scratch) {
    float *m = scratch, *v = scratch + d, *theta = scratch + 2 * d;
    float rate = call->rates[taken], correction = call->corrections[taken];
    for (int64_t i = 0; i < d; i++) {
        m[i] = call->m[i] + call->beta_1_rest * (g[i] - call->m[i]);
        v[i] = call->beta_2 * call->v[i] + call->beta_2_rest * g[i] * g[i];
        theta[i] = call->theta[i] - rate * m[i] / (sqrtf(v[i]) / correction + call->epsilon);
    }
    if (!all_finite(3 * d, scratch)) return 0;
    memcpy(call->m, m, (size_t)d * sizeof(float)), memcpy(call->v, v, (size_t)d * sizeof(float));
    memcpy(call->theta, theta, (size_t)d * sizeof(float));
    return 1;
}

/* Take the steps of a call. Returns how many batches were sampled, -1 without memory. */
EXPORT FOR_EVERY_WIDTH int64_t fedpg_loop_run(void *opened, Call *call) {
    Loop *loop = opened;
    Side *now = &loop->sides[NOW], *before = &loop->sides[BEFORE];
    int64_t d = now->network.parameters, taken = 0, n = 0;
    int is_corrected = call->mu || call->wants_snapshot;
    float *scratch = malloc((size_t)(3 * d + 1) * sizeof(float));
    if (scratch == NULL) return -1;
    find_helper(&loop->helper);
    fill_network(&now->network, call->theta), fill_network(&before->network, call->theta_0);
    call->is_aborted = 0;
    for (; n < call->steps && !call->is_aborted; n++) {
        int64_t rows = sample(loop, call->words + n * 2 * WORDS, is_corrected && call->has_moved);
        call->rows[n] = rows;
        compute_gradients(loop);
        call->losses[n] = loss_of(loop, rows);
        float *direction = call->directions + n * d;
        int is_same = !call->has_moved; /* at theta_0 as at theta_n: every ratio is 1 */
        if (is_corrected && is_same && !all_finite(rows, now->log_probs)) {
            for (int64_t start = 0; start < rows; start += GRADIENT_BLOCK)
                prepare_before(loop, start, rows - start < GRADIENT_BLOCK ? rows - start : GRADIENT_BLOCK);
            fedpg_loop_gradients(loop, BEFORE, SIDES);
            is_same = 0;
        }
        const float *snapshot = is_same || !is_corrected ? now->gradient : before->gradient;
        double ratio = is_same || !is_corrected ? 1.0 : mean_ratio(loop, rows);
        memcpy(call->snapshot, snapshot, (size_t)d * sizeof(float));
        call->ratios[n] = ratio, call->outcomes[n] = 0;
        if (call->mu) {
            for (int64_t i = 0; i < d; i++) direction[i] = now->gradient[i] - snapshot[i] + call->mu[i];
            if (!(ratio >= call->ratio_low && ratio <= call->ratio_high)) { /* not a number is out of range, too */
                call->is_aborted = 1;
                continue;
            }
        } else {
            memcpy(direction, now->gradient, (size_t)d * sizeof(float));
        }
        if (adam(call, d, direction, taken, scratch)) {
            taken++, call->has_moved = 1, call->outcomes[n] = 1;
            fill_network(&now->network, call->theta);
        }
    }
    free(scratch);
    return n;
}

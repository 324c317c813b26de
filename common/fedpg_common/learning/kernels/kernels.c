/* The inner loops of an agent's round, compiled.
 *
 * What they promise: the same bits on every processor. All arithmetic is IEEE 754 in the order in which it is written:
 * compiled with -ffp-contract=off (no fused multiply-add) and without -ffast-math. Loops are vectorised across
 * independent sums only, so that the width of the vectors, which is chosen when the program runs, changes nothing.
 * exp, log and tanh are computed here, in double precision, and rounded to single: no mathematical library has a say.
 * The exceptions are sin and cos of CartPole's angle, which are the C library's, as they are Gymnasium's.
 *
 * kernels/reference.py has the same in numpy, and a test holds the two equal, bit for bit.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#define HAS_THREADS
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#endif

/* The C library's sine and cosine, as the process has them. Linked in the usual way they may be others: Zig brings its own
 * along, hidden, which differ in the last bit. */
typedef double Function(double);
static Function *c_sine = sin, *c_cosine = cos;
#ifdef HAS_THREADS
__attribute__((constructor)) static void look_up_sine(void) {
    void *process = dlopen(NULL, RTLD_LAZY);
    if (process == NULL) return;
    Function *sine = (Function *)dlsym(process, "sin"), *cosine = (Function *)dlsym(process, "cos");
    if (sine && cosine) c_sine = sine, c_cosine = cosine;
    dlclose(process);
}
#endif

#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
#define FOR_EVERY_WIDTH __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define FOR_EVERY_WIDTH
#endif
#define INLINE static inline __attribute__((always_inline))
#define EXPORT

enum { LAYERS_MAX = 16, GRADIENT_BLOCK = 64, VERSION = 4 };

EXPORT int32_t fedpg_version(void) { return VERSION; }

/* Functions --------------------------------------------------------------------------------------------------------- */

static const double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
static const double SHIFT = 6755399441055744.0; /* 3 * 2^51: adding it rounds to a whole number */

/* e^x, to about one unit in the last place of a double; written without a branch, so that loops of it are vectorised. */
INLINE double exponential(double x) {
    double bounded = x < -708.0 ? -708.0 : (x > 709.0 ? 709.0 : x);
    double shifted = bounded * 1.4426950408889634 + SHIFT, power = shifted - SHIFT;
    double r = (bounded - power * LN2_HIGH) - power * LN2_LOW; /* |r| < 0.3466: Taylor, by Horner's rule */
    double sum = 1.0 / 87178291200.0;
    sum = sum * r + 1.0 / 6227020800.0;
    sum = sum * r + 1.0 / 479001600.0;
    sum = sum * r + 1.0 / 39916800.0;
    sum = sum * r + 1.0 / 3628800.0;
    sum = sum * r + 1.0 / 362880.0;
    sum = sum * r + 1.0 / 40320.0;
    sum = sum * r + 1.0 / 5040.0;
    sum = sum * r + 1.0 / 720.0;
    sum = sum * r + 1.0 / 120.0;
    sum = sum * r + 1.0 / 24.0;
    sum = sum * r + 1.0 / 6.0;
    sum = sum * r + 0.5;
    sum = sum * r + 1.0;
    sum = sum * r + 1.0;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits); /* the whole number stands in its last bits */
    bits = (int64_t)((uint64_t)(bits + 1023) << 52);
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    double value = sum * scale;
    value = x < -708.0 ? 0.0 : value;
    value = x > 709.0 ? INFINITY : value;
    return x == x ? value : x;
}

/* ln x of a positive, normal x; also without a branch, and without a conversion that few processors have. */
INLINE double logarithm(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t moved = bits - 0x3fe6a09e667f3bcdULL;     /* sqrt(1/2) */
    uint64_t shifted = 0x4338000000000000ULL - 2048 + ((moved + 0x8000000000000000ULL) >> 52); /* SHIFT + the power */
    bits -= moved & 0xfff0000000000000ULL; /* m in [sqrt(1/2), sqrt(2)) */
    double power, m;
    memcpy(&power, &shifted, sizeof power), memcpy(&m, &bits, sizeof m);
    power -= SHIFT;
    double s = (m - 1.0) / (m + 1.0), square = s * s; /* ln m = 2 artanh s, |s| < 0.172 */
    double sum = 1.0 / 23.0;
    sum = sum * square + 1.0 / 21.0;
    sum = sum * square + 1.0 / 19.0;
    sum = sum * square + 1.0 / 17.0;
    sum = sum * square + 1.0 / 15.0;
    sum = sum * square + 1.0 / 13.0;
    sum = sum * square + 1.0 / 11.0;
    sum = sum * square + 1.0 / 9.0;
    sum = sum * square + 1.0 / 7.0;
    sum = sum * square + 1.0 / 5.0;
    sum = sum * square + 1.0 / 3.0;
    sum = sum * square + 1.0;
    return power * LN2_HIGH + (power * LN2_LOW + 2.0 * s * sum);
}

INLINE double hyperbolic_tangent(double x) {
    double size = fabs(x), bounded = size < 20.0 ? size : 20.0, square = x * x;
    double e = exponential(-2.0 * bounded), large = (1.0 - e) / (1.0 + e);
    double sum = -1382.0 / 155925.0; /* x - x^3/3 + ..., where the form above cancels */
    sum = sum * square + 62.0 / 2835.0;
    sum = sum * square - 17.0 / 315.0;
    sum = sum * square + 2.0 / 15.0;
    sum = sum * square - 1.0 / 3.0;
    double small = size + size * (square * sum), value = size < 0.05 ? small : large;
    value = x < 0.0 ? -value : value;
    return x == x ? value : x;
}

/* Over arrays in single precision, each value computed in double precision and rounded once. x and y may be the same. */
INLINE void all_tanh(int64_t count, const float *x, float *y) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) y[i] = (float)hyperbolic_tangent((double)x[i]);
}

INLINE void all_exp(int64_t count, const float *x, float *y) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) y[i] = (float)exponential((double)x[i]);
}

INLINE void all_log(int64_t count, const float *x, float *y) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) y[i] = (float)logarithm((double)x[i]);
}

EXPORT FOR_EVERY_WIDTH void fedpg_functions(int64_t count, const double *x, double *exps, double *logs, double *tanhs) {
    for (int64_t i = 0; i < count; i++) {
        exps[i] = exponential(x[i]);
        logs[i] = logarithm(fabs(x[i]));
        tanhs[i] = hyperbolic_tangent(x[i]);
    }
}

/* A multilayer perceptron ------------------------------------------------------------------------------------------- */

/* Rows of activations and weights are padded with zeros to whole vectors of 16 numbers. */
enum { LANES = 16, ROWS_AT_ONCE = 4 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
enum { FEW = 4 };
typedef float Few __attribute__((vector_size(FEW * sizeof(float))));
typedef int32_t FewBits __attribute__((vector_size(FEW * sizeof(int32_t))));

INLINE int64_t padded(int64_t width) { return (width + LANES - 1) / LANES * LANES; }

static float *zeros(size_t count) {
    size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
    float *memory = aligned_alloc(64, bytes ? bytes : 64);
    if (memory) memset(memory, 0, bytes);
    return memory;
}

/* `layers` linear layers between `layers` + 1 sizes. Each has its weight (out, in) and then its bias (out) in theta. */
typedef struct {
    int32_t layers, relu;
    int64_t parameters;
    int64_t sizes[LAYERS_MAX + 1], strides[LAYERS_MAX + 1];
    size_t places[LAYERS_MAX];         /* of each weight in theta */
    float *forward_weight[LAYERS_MAX]; /* (in, padded out) */
    float *back_weight[LAYERS_MAX];    /* (out, padded in) */
    float *bias[LAYERS_MAX];           /* (padded out) */
    float *memory;
} Network;

/* Copy other parameters into an open network. */
static void fill_network(Network *network, const float *theta) {
    for (int l = 0; l < network->layers; l++) {
        int64_t in = network->sizes[l], out = network->sizes[l + 1];
        int64_t in_stride = network->strides[l], out_stride = network->strides[l + 1];
        const float *weight = theta + network->places[l];
        for (int64_t i = 0; i < out; i++) {
            for (int64_t k = 0; k < in; k++) {
                network->forward_weight[l][k * out_stride + i] = weight[i * in + k];
                network->back_weight[l][i * in_stride + k] = weight[i * in + k];
            }
            network->bias[l][i] = weight[out * in + i];
        }
    }
}

static int open_network(Network *network, int32_t layers, const int32_t *sizes, int32_t relu, const float *theta) {
    if (layers < 1 || layers > LAYERS_MAX) return 0;
    network->layers = layers, network->relu = relu;
    size_t needed = 0, place = 0;
    for (int l = 0; l <= layers; l++) network->sizes[l] = sizes[l], network->strides[l] = padded(sizes[l]);
    for (int l = 0; l < layers; l++)
        needed += (size_t)((sizes[l] + 1) * padded(sizes[l + 1]) + sizes[l + 1] * padded(sizes[l]));
    network->memory = zeros(needed);
    if (network->memory == NULL) return 0;
    float *free_memory = network->memory;
    for (int l = 0; l < layers; l++) {
        int64_t in = sizes[l], out = sizes[l + 1], in_stride = padded(in), out_stride = padded(out);
        network->places[l] = place;
        network->forward_weight[l] = free_memory, free_memory += in * out_stride;
        network->bias[l] = free_memory, free_memory += out_stride;
        network->back_weight[l] = free_memory, free_memory += out * in_stride;
        place += (size_t)(in * out + out);
    }
    network->parameters = (int64_t)place;
    fill_network(network, theta);
    return 1;
}

/* x where it is positive, else 0. */
INLINE Lanes rectified(Lanes x) {
    typedef int32_t Bits __attribute__((vector_size(LANES * sizeof(int32_t))));
    const Lanes zero = {0};
    return (Lanes)((Bits)(x > zero) & (Bits)x);
}

/* y = x w + b: the products added in the order of the inputs, from zero, and b, if there is one, last. Rectified, or not. */
INLINE void multiply(
    int64_t rows, int64_t in, const float *x, int64_t x_stride, const float *w, const float *b, float *y,
    int64_t y_stride, int relu) {
    for (int64_t column = 0; column < y_stride; column += LANES) {
        Lanes offset = {0};
        if (b) offset = *(const Lanes *)(b + column);
        int64_t r = 0;
        for (; r + ROWS_AT_ONCE <= rows; r += ROWS_AT_ONCE) {
            const float *x0 = x + r * x_stride, *x1 = x0 + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
            Lanes y0 = {0}, y1 = {0}, y2 = {0}, y3 = {0};
            for (int64_t k = 0; k < in; k++) {
                Lanes weights = *(const Lanes *)(w + k * y_stride + column);
                y0 += x0[k] * weights, y1 += x1[k] * weights, y2 += x2[k] * weights, y3 += x3[k] * weights;
            }
            if (b) y0 += offset, y1 += offset, y2 += offset, y3 += offset;
            if (relu) y0 = rectified(y0), y1 = rectified(y1), y2 = rectified(y2), y3 = rectified(y3);
            float *to = y + r * y_stride + column;
            *(Lanes *)to = y0, *(Lanes *)(to + y_stride) = y1;
            *(Lanes *)(to + 2 * y_stride) = y2, *(Lanes *)(to + 3 * y_stride) = y3;
        }
        for (; r < rows; r++) {
            const float *x0 = x + r * x_stride;
            Lanes y0 = {0};
            for (int64_t k = 0; k < in; k++) y0 += x0[k] * *(const Lanes *)(w + k * y_stride + column);
            if (b) y0 += offset;
            if (relu) y0 = rectified(y0);
            *(Lanes *)(y + r * y_stride + column) = y0;
        }
    }
}

/* sums (width, LANES) of a column of products: a number of each row with LANES of another, added in the order of the rows.
 * With `lane_sums`, those of the lanes alone, too. */
INLINE void add_column(
    int width, int64_t rows, const float *numbers, int64_t number_stride, const float *lanes, int64_t lane_stride,
    float *sums, float *lane_sums) {
    Lanes sum[ROWS_AT_ONCE + 1] = {{0}};
    for (int64_t r = 0; r < rows; r++, numbers += number_stride, lanes += lane_stride) {
        Lanes values = *(const Lanes *)lanes;
        for (int i = 0; i < width; i++) sum[i] += numbers[i] * values;
        if (lane_sums) sum[ROWS_AT_ONCE] += values;
    }
    for (int i = 0; i < width; i++) *(Lanes *)(sums + i * lane_stride) = sum[i];
    if (lane_sums) *(Lanes *)lane_sums = sum[ROWS_AT_ONCE];
}

/* sums (width, lane_stride) = numbers^T lanes, all rows added in their order; `lane_sums` (lane_stride) may be NULL. */
INLINE void add_products(
    int64_t rows, int64_t width, const float *numbers, int64_t number_stride, const float *lanes, int64_t lane_stride,
    float *sums, float *lane_sums) {
    for (int64_t column = 0; column < lane_stride; column += LANES) {
        const float *here = lanes + column;
        int64_t i = 0;
        if (lane_sums && width >= ROWS_AT_ONCE) {
            add_column(ROWS_AT_ONCE, rows, numbers, number_stride, here, lane_stride, sums + column, lane_sums + column);
            i = ROWS_AT_ONCE;
        } else if (lane_sums) {
            add_column(0, rows, numbers, number_stride, here, lane_stride, sums, lane_sums + column);
        }
        for (; i + ROWS_AT_ONCE <= width; i += ROWS_AT_ONCE)
            add_column(
                ROWS_AT_ONCE, rows, numbers + i, number_stride, here, lane_stride, sums + i * lane_stride + column, NULL);
        float *rest = sums + i * lane_stride + column;
        if (width - i == 3) add_column(3, rows, numbers + i, number_stride, here, lane_stride, rest, NULL);
        if (width - i == 2) add_column(2, rows, numbers + i, number_stride, here, lane_stride, rest, NULL);
        if (width - i == 1) add_column(1, rows, numbers + i, number_stride, here, lane_stride, rest, NULL);
    }
}

/* The sums (stride) of rows (rows, stride), added in their order. */
INLINE void add_rows(int64_t rows, const float *x, int64_t stride, float *sums) {
    for (int64_t column = 0; column < stride; column += LANES) {
        Lanes sum = {0};
        for (int64_t r = 0; r < rows; r++) sum += *(const Lanes *)(x + r * stride + column);
        *(Lanes *)(sums + column) = sum;
    }
}

/* y = x w + b as in `multiply`, of at most FEW outputs. */
INLINE void multiply_few(
    int64_t rows, int64_t in, const float *x, int64_t x_stride, const float *w, const float *b, float *y,
    int64_t y_stride) {
    const Few offset = *(const Few *)b;
    int64_t r = 0;
    for (; r + ROWS_AT_ONCE <= rows; r += ROWS_AT_ONCE) {
        const float *x0 = x + r * x_stride, *x1 = x0 + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
        Few y0 = {0}, y1 = {0}, y2 = {0}, y3 = {0};
        for (int64_t k = 0; k < in; k++) {
            Few weights = *(const Few *)(w + k * y_stride);
            y0 += x0[k] * weights, y1 += x1[k] * weights, y2 += x2[k] * weights, y3 += x3[k] * weights;
        }
        float *to = y + r * y_stride;
        *(Few *)to = y0 + offset, *(Few *)(to + y_stride) = y1 + offset;
        *(Few *)(to + 2 * y_stride) = y2 + offset, *(Few *)(to + 3 * y_stride) = y3 + offset;
    }
    for (; r < rows; r++) {
        Few y0 = {0};
        for (int64_t k = 0; k < in; k++) y0 += x[r * x_stride + k] * *(const Few *)(w + k * y_stride);
        *(Few *)(y + r * y_stride) = y0 + offset;
    }
}

/* The outputs of layers `from` to `to` for some rows, activated between layers: values[0] are the inputs. */
INLINE void forward_layers(
    const Network *network, int32_t from, int32_t to, int64_t rows, const float *x, int64_t stride,
    float *const *values) {
    for (int l = from; l < to; l++) {
        int64_t y_stride = network->strides[l + 1], out = network->sizes[l + 1];
        int is_last = l + 1 == network->layers;
        float *y = values[l + 1];
        if (is_last && out <= FEW)
            multiply_few(rows, network->sizes[l], x, stride, network->forward_weight[l], network->bias[l], y, y_stride);
        else
            multiply(
                rows, network->sizes[l], x, stride, network->forward_weight[l], network->bias[l], y, y_stride,
                network->relu && !is_last);
        x = y, stride = y_stride;
        if (!network->relu && !is_last) all_tanh(rows * stride, y, y);
    }
}

/* Those of every layer. The inputs are x, `stride` apart. */
INLINE void forward(const Network *network, int64_t rows, const float *x, int64_t stride, float *const *values) {
    forward_layers(network, 0, network->layers, rows, x, stride, values);
}

/* Room for the outputs of every layer, after `inputs` numbers for the caller. */
static float *open_values(const Network *network, int64_t rows, size_t inputs, float **values) {
    size_t needed = (inputs + LANES - 1) / LANES * LANES, start = needed;
    for (int l = 1; l <= network->layers; l++) needed += (size_t)(rows * network->strides[l]);
    float *memory = zeros(needed);
    if (memory == NULL) return NULL;
    values[0] = memory;
    for (int l = 1; l <= network->layers; l++) {
        values[l] = memory + start;
        start += (size_t)(rows * network->strides[l]);
    }
    return memory;
}

/* A network that stays open between calls, for acting. Returns NULL without memory. */
EXPORT void *fedpg_open(int32_t layers, const int32_t *sizes, int32_t relu, const float *theta) {
    Network *network = malloc(sizeof(Network));
    if (network && !open_network(network, layers, sizes, relu, theta)) {
        free(network);
        network = NULL;
    }
    return network;
}

EXPORT void fedpg_close(void *network) {
    free(((Network *)network)->memory);
    free(network);
}

/* One action for each of `rows` rows of `dense` logits: drawn with a number in [0, 1) each, or the first of the most
 * likely without `uniforms`. `dense` is overwritten. */
INLINE void choose(int64_t rows, int64_t outputs, float *dense, const float *uniforms, int64_t *actions) {
    all_tanh(rows * outputs, dense, dense);
    if (uniforms) all_exp(rows * outputs, dense, dense); /* in [1/e, e]: no shift is needed */
    for (int64_t i = 0; i < rows; i++) {
        float *row = dense + i * outputs;
        int64_t action = 0;
        if (uniforms) { /* invert the cumulative distribution; rounding may put a point on the total, not beyond */
            for (int64_t j = 1; j < outputs; j++) row[j] += row[j - 1];
            float point = uniforms[i] * row[outputs - 1];
            for (int64_t j = 0; j + 1 < outputs; j++) action += row[j] <= point;
        } else {
            for (int64_t j = 1; j < outputs; j++)
                if (row[j] > row[action]) action = j;
        }
        actions[i] = action;
    }
}

/* The logits of each row, before their tanh, without padding. */
INLINE void logits_of(
    const Network *network, int64_t rows, const float *observations, float *const *values, float *dense) {
    int64_t outputs = network->sizes[network->layers], stride = network->strides[network->layers];
    forward(network, rows, observations, network->sizes[0], values);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < outputs; j++) dense[i * outputs + j] = values[network->layers][i * stride + j];
}

/* Actions for observations (rows, inputs). Returns 0 without memory. */
EXPORT FOR_EVERY_WIDTH int32_t fedpg_act(
    const void *opened, int64_t rows, const float *observations, const float *uniforms, int64_t *actions) {
    const Network *network = opened;
    float *values[LAYERS_MAX + 1], *memory = open_values(network, rows, 0, values);
    int64_t outputs = network->sizes[network->layers];
    float *dense = malloc((size_t)(rows * outputs + 1) * sizeof(float));
    int32_t is_done = memory && dense;
    if (is_done) {
        logits_of(network, rows, observations, values, dense);
        choose(rows, outputs, dense, uniforms, actions);
    }
    free(memory), free(dense);
    return is_done;
}

/* CartPole-v1 ------------------------------------------------------------------------------------------------------- */

/* numpy.random.PCG64(seed), as far as the start of an episode needs it: SeedSequence, then doubles in [0, 1). */
typedef unsigned __int128 uint128;
typedef struct {
    uint128 state, increment;
} Generator;

static const uint128 PCG_MULTIPLIER = ((uint128)2549297995355413924ULL << 64) | 4865540595714422341ULL;

INLINE uint32_t hash_mix(uint32_t value, uint32_t *constant, uint32_t multiplier) {
    value ^= *constant;
    *constant *= multiplier;
    value *= *constant;
    return value ^ (value >> 16);
}

INLINE uint32_t mix(uint32_t x, uint32_t y) {
    uint32_t result = 0xca01f9ddU * x - 0x4973f715U * y;
    return result ^ (result >> 16);
}

INLINE uint64_t next_bits(Generator *generator) {
    generator->state = generator->state * PCG_MULTIPLIER + generator->increment;
    uint64_t high = (uint64_t)(generator->state >> 64), low = (uint64_t)generator->state;
    uint64_t value = high ^ low;
    int turn = (int)(high >> 58);
    return (value >> turn) | (value << (-turn & 63));
}

/* Of numpy's SeedSequence with these words, 4 at least. */
static Generator seeded(const uint32_t *entropy, int count) {
    uint32_t pool[4], words[8], constant = 0x43b0d7e5U;
    for (int i = 0; i < 4; i++) pool[i] = hash_mix(entropy[i], &constant, 0x931e8875U);
    for (int from = 0; from < count; from++)
        for (int to = 0; to < 4; to++)
            if (from != to) pool[to] = mix(pool[to], hash_mix(from < 4 ? pool[from] : entropy[from], &constant, 0x931e8875U));
    constant = 0x8b51f9ddU;
    for (int i = 0; i < 8; i++) words[i] = hash_mix(pool[i % 4], &constant, 0x58f38dedU);
    uint64_t values[4];
    for (int i = 0; i < 4; i++) values[i] = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
    Generator generator = {0, (((uint128)values[2] << 64 | values[3]) << 1) | 1};
    next_bits(&generator);
    generator.state += (uint128)values[0] << 64 | values[1];
    next_bits(&generator);
    return generator;
}

static const double TIME_STEP_S = 0.02, POSITION_LIMIT = 2.4;
static const double ANGLE_LIMIT_RAD = 12.0 * 2.0 * 3.141592653589793 / 360.0;

/* A cart's physics, in the order of interface.CARTPOLE. */
typedef struct {
    double gravity, pole_mass, total_mass, half_length, pole_mass_length, force;
} CartPole;

EXPORT void fedpg_cartpole_starts(int64_t count, const int64_t *seeds, double *states) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t entropy[4] = {(uint32_t)seeds[i], (uint32_t)((uint64_t)seeds[i] >> 32), 0, 0};
        Generator generator = seeded(entropy, 4);
        for (int j = 0; j < 4; j++)
            states[4 * i + j] = -0.05 + 0.1 * ((double)(next_bits(&generator) >> 11) * (1.0 / 9007199254740992.0));
    }
}

INLINE int has_fallen(double x, double angle) { return fabs(x) > POSITION_LIMIT || fabs(angle) > ANGLE_LIMIT_RAD; }

/* One Euler step in Gymnasium's order of operations; whether the pole has fallen or the cart has left. */
INLINE int cartpole_step(const CartPole *cart, double *state, int64_t action, double cosine, double sine) {
    double x = state[0], x_dot = state[1], angle = state[2], angle_dot = state[3];
    const double forces[2] = {-cart->force, cart->force};
    double force = forces[action == 1]; /* looked up: nobody can predict it */
    double pull = (force + cart->pole_mass_length * (angle_dot * angle_dot) * sine) / cart->total_mass;
    double angle_acc = (cart->gravity * sine - cosine * pull) /
                       (cart->half_length * (4.0 / 3.0 - cart->pole_mass * (cosine * cosine) / cart->total_mass));
    double x_acc = pull - cart->pole_mass_length * angle_acc * cosine / cart->total_mass;
    state[0] = x + TIME_STEP_S * x_dot;
    state[1] = x_dot + TIME_STEP_S * x_acc;
    state[2] = angle + TIME_STEP_S * angle_dot;
    state[3] = angle_dot + TIME_STEP_S * angle_acc;
    return has_fallen(state[0], state[2]);
}

/* Episodes in lock-step, finished ones dropped: rows as in rollouts.sample. `uniforms` has a number for each row to come,
 * NULL for greedy actions. The arrays have room for count * horizon rows. Returns the rows, -1 without memory. */
EXPORT FOR_EVERY_WIDTH int64_t fedpg_cartpole_rollout(
    const void *opened, const double *physics, int64_t count, const int64_t *seeds, int64_t horizon, const float *uniforms,
    float *observations, int64_t *actions, int64_t *episodes) {
    const Network *network = opened;
    const CartPole cart = {physics[0], physics[1], physics[2], physics[3], physics[4], physics[5]};
    int64_t outputs = network->sizes[network->layers], rows = -1;
    float *values[LAYERS_MAX + 1], *memory = open_values(network, count, 0, values);
    float *dense = malloc((size_t)(count * outputs + 1) * sizeof(float));
    double *states = malloc((size_t)(count + 1) * 4 * sizeof(double));
    int64_t *live = malloc((size_t)(count + 1) * sizeof(int64_t)), alive = count;
    if (memory && dense && states && live) {
        rows = 0;
        fedpg_cartpole_starts(count, seeds, states);
        for (int64_t i = 0; i < count; i++) live[i] = i;
        for (int64_t step = 0; step < horizon && alive; step++) {
            float *seen = observations + rows * 4;
            for (int64_t i = 0; i < alive * 4; i++) seen[i] = (float)states[i];
            logits_of(network, alive, seen, values, dense);
            choose(alive, outputs, dense, uniforms ? uniforms + rows : NULL, actions + rows);
            int64_t surviving = 0;
            for (int64_t i = 0; i < alive; i++) {
                double *state = states + 4 * i;
                episodes[rows + i] = live[i];
                if (!cartpole_step(&cart, state, actions[rows + i], c_cosine(state[2]), c_sine(state[2]))) {
                    if (surviving != i) memcpy(states + 4 * surviving, state, 4 * sizeof(double));
                    live[surviving++] = live[i];
                }
            }
            rows += alive;
            alive = surviving;
        }
    }
    free(memory), free(dense), free(states), free(live);
    return rows;
}

/* The gradient of a categorical policy ------------------------------------------------------------------------------ */

/* What the rows' outputs, which are before their tanh, come to while no advantage is known yet: log pi, the ratios if there
 * is a reference, and for each output the two factors of its slope: d log pi / d logit, and that logit's own derivative.
 * At most GRADIENT_BLOCK rows; `scores` and `derivatives` have a column of that length for each output, so that all loops
 * but the first run along them. */
INLINE void categorical_outputs(
    int64_t rows, int64_t outputs, const float *values, int64_t stride, const int64_t *actions, const float *reference,
    float *scores, float *derivatives, float *log_probs, float *ratios) {
    float totals[GRADIENT_BLOCK] = {0}, logs[GRADIENT_BLOCK], chosen[GRADIENT_BLOCK] = {0};
    int32_t taken[GRADIENT_BLOCK];
    for (int64_t r = 0; r < rows; r++) taken[r] = (int32_t)actions[r];
    for (int32_t j = 0; j < outputs; j++) {
        float *logit = derivatives + j * GRADIENT_BLOCK, *weight = scores + j * GRADIENT_BLOCK;
        for (int64_t r = 0; r < rows; r++) logit[r] = values[r * stride + j];
        all_tanh(rows, logit, logit);
        all_exp(rows, logit, weight);
#pragma GCC ivdep
        for (int64_t r = 0; r < rows; r++) totals[r] += weight[r], chosen[r] = taken[r] == j ? logit[r] : chosen[r];
    }
    all_log(rows, totals, logs);
#pragma GCC ivdep
    for (int64_t r = 0; r < rows; r++) log_probs[r] = chosen[r] - logs[r];
    for (int32_t j = 0; j < outputs; j++) {
        float *derivative = derivatives + j * GRADIENT_BLOCK, *score = scores + j * GRADIENT_BLOCK;
#pragma GCC ivdep
        for (int64_t r = 0; r < rows; r++) {
            score[r] = (taken[r] == j ? 1.0f : 0.0f) - score[r] / totals[r];
            derivative[r] = 1.0f - derivative[r] * derivative[r];
        }
    }
    if (reference == NULL) return;
#pragma GCC ivdep
    for (int64_t r = 0; r < rows; r++) ratios[r] = (float)exponential((double)log_probs[r] - (double)reference[r]);
}

/* The slopes of sum c_t log pi(a_t|s_t) at these outputs, with c_t = advantage_t * ratio_t * scale. */
INLINE void categorical_slopes(
    int64_t rows, int64_t outputs, const float *scores, const float *derivatives, const float *advantages,
    const float *ratios, float scale, float *slopes, int64_t stride) {
    float factors[GRADIENT_BLOCK], column[GRADIENT_BLOCK];
#pragma GCC ivdep
    for (int64_t r = 0; r < rows; r++) factors[r] = (advantages[r] * ratios[r]) * scale;
    for (int64_t j = 0; j < outputs; j++) {
        const float *score = scores + j * GRADIENT_BLOCK, *derivative = derivatives + j * GRADIENT_BLOCK;
#pragma GCC ivdep
        for (int64_t r = 0; r < rows; r++) column[r] = (score[r] * factors[r]) * derivative[r];
        for (int64_t r = 0; r < rows; r++) slopes[r * stride + j] = column[r];
    }
}

/* What a gradient needs beside its network, for GRADIENT_BLOCK rows at a time. */
typedef struct {
    float *values[LAYERS_MAX + 1]; /* the outputs of each layer; those of layer 0 are the padded inputs */
    float *slopes, *before, *sums, *dense;
    double *totals[LAYERS_MAX], *totals_memory; /* of each layer's weights, upright or not, and of its biases */
    size_t totals_bytes;
    float *memory;
} Workspace;

/* Whether the products of a layer's slopes and inputs are summed as (out, padded in), or else as (in, padded out). */
INLINE int is_upright(const Network *network, int l) {
    return network->sizes[l + 1] * network->strides[l] < network->sizes[l] * network->strides[l + 1];
}

static void close_workspace(Workspace *space) {
    free(space->memory), free(space->slopes), free(space->before), free(space->sums), free(space->dense);
    free(space->totals_memory);
}

/* Returns 0 without memory; what there is must be closed all the same. */
static int open_workspace(const Network *network, Workspace *space) {
    int64_t widest = 0, largest = 0, outputs = network->sizes[network->layers];
    size_t places[LAYERS_MAX], needed = 0;
    for (int l = 0; l <= network->layers; l++) {
        int64_t stride = network->strides[l];
        if (stride > widest) widest = stride;
        if (l == 0) continue;
        int64_t products = stride * network->strides[l - 1];
        if (products > largest) largest = products;
        places[l - 1] = needed, needed += (size_t)(products + stride);
    }
    space->memory = open_values(network, GRADIENT_BLOCK, (size_t)(GRADIENT_BLOCK * network->strides[0]), space->values);
    space->slopes = zeros((size_t)(GRADIENT_BLOCK * widest));
    space->before = zeros((size_t)(GRADIENT_BLOCK * widest));
    space->sums = zeros((size_t)(largest + widest));
    space->dense = zeros((size_t)(2 * GRADIENT_BLOCK * outputs));
    space->totals_bytes = needed * sizeof(double);
    space->totals_memory = calloc(needed, sizeof(double));
    for (int l = 0; l < network->layers; l++)
        space->totals[l] = space->totals_memory ? space->totals_memory + places[l] : NULL;
    if (space->memory && space->slopes && space->before && space->sums && space->dense && space->totals_memory) return 1;
    return 0;
}

/* Add the gradient of a block of rows, whose slopes at the outputs are in the workspace, to the totals. */
INLINE void add_gradient(const Network *network, Workspace *space, int64_t rows, float *const *values) {
    for (int l = network->layers - 1; l >= 0; l--) {
        int64_t in = network->sizes[l], out = network->sizes[l + 1];
        int64_t in_stride = network->strides[l], out_stride = network->strides[l + 1];
        float *sums = space->sums, *slope_sums = sums + padded(out) * padded(in);
        /* The same sums either way: whichever takes fewer vectors. */
        int64_t height = is_upright(network, l) ? out : in, stride = is_upright(network, l) ? in_stride : out_stride;
        if (is_upright(network, l)) {
            add_products(rows, out, space->slopes, out_stride, values[l], in_stride, sums, NULL);
            add_rows(rows, space->slopes, out_stride, slope_sums);
        } else {
            add_products(rows, in, values[l], in_stride, space->slopes, out_stride, sums, slope_sums);
        }
        double *total = space->totals[l], *bias_total = total + padded(out) * padded(in);
        for (int64_t i = 0; i < height * stride; i++) total[i] += (double)sums[i];
        for (int64_t i = 0; i < out_stride; i++) bias_total[i] += (double)slope_sums[i];
        if (l == 0) break;
        multiply(rows, out, space->slopes, out_stride, network->back_weight[l], NULL, space->before, in_stride, 0);
        const float *x = values[l];
        float *slopes = space->slopes, *before = space->before;
        if (network->relu)
            for (int64_t i = 0; i < rows * in_stride; i++) slopes[i] = x[i] > 0.0f ? before[i] : 0.0f;
        else
            for (int64_t i = 0; i < rows * in_stride; i++) slopes[i] = before[i] * (1.0f - x[i] * x[i]);
    }
}

/* The totals, rounded, in the order of the parameters. */
INLINE void read_gradient(const Network *network, const Workspace *space, float *gradient) {
    for (int l = 0; l < network->layers; l++) {
        int64_t in = network->sizes[l], out = network->sizes[l + 1];
        const double *total = space->totals[l], *bias_total = total + padded(out) * padded(in);
        float *place = gradient + network->places[l];
        int64_t across = is_upright(network, l) ? 1 : network->strides[l + 1];
        int64_t down = is_upright(network, l) ? network->strides[l] : 1;
        for (int64_t i = 0; i < out; i++) {
            for (int64_t k = 0; k < in; k++) place[i * in + k] = (float)total[i * down + k * across];
            place[out * in + i] = (float)bias_total[i];
        }
    }
}

/* gradient = sum over rows of c_t grad log pi(a_t|s_t), c_t = advantage_t * ratio_t * scale, where ratio_t =
 * exp(log pi - reference), or 1 if `reference` is NULL. Rows are added in single precision, 64 at a time, and these sums in
 * double. `log_probs` and `ratios` are (rows). Returns 0 without memory. */
EXPORT FOR_EVERY_WIDTH int32_t fedpg_categorical_gradient(
    const void *opened, int64_t rows, const float *observations, const int64_t *actions, const float *advantages,
    const float *reference, float scale, float *gradient, float *log_probs, float *ratios) {
    const Network *network = opened;
    const int32_t layers = network->layers;
    int64_t inputs = network->sizes[0], stride = network->strides[0], outputs = network->sizes[layers];
    Workspace space;
    if (!open_workspace(network, &space)) {
        close_workspace(&space);
        return 0;
    }
    for (int64_t start = 0; start < rows; start += GRADIENT_BLOCK) {
        int64_t block = rows - start < GRADIENT_BLOCK ? rows - start : GRADIENT_BLOCK;
        for (int64_t r = 0; r < block; r++)
            for (int64_t k = 0; k < inputs; k++)
                space.values[0][r * stride + k] = observations[(start + r) * inputs + k];
        forward(network, block, space.values[0], stride, space.values);
        float *scores = space.dense, *derivatives = space.dense + GRADIENT_BLOCK * outputs;
        categorical_outputs(
            block, outputs, space.values[layers], network->strides[layers], actions + start,
            reference ? reference + start : NULL, scores, derivatives, log_probs + start, ratios + start);
        for (int64_t r = 0; r < block && !reference; r++) ratios[start + r] = 1.0f;
        categorical_slopes(
            block, outputs, scores, derivatives, advantages + start, ratios + start, scale, space.slopes,
            network->strides[layers]);
        add_gradient(network, &space, block, space.values);
    }
    read_gradient(network, &space, gradient);
    close_workspace(&space);
    return 1;
}

/* Advantages -------------------------------------------------------------------------------------------------------- */

/* What an episode's deviations from its mean are multiplied by: nothing where they are but rounding. */
INLINE double whitening(double length, double mean, double squares, double epsilon) {
    double degrees = length - 1.0 > 1.0 ? length - 1.0 : 1.0;
    double std = sqrt(squares / degrees), rounding = 8.0 * length * epsilon * fabs(mean);
    return std > rounding ? 1.0 / std : 0.0;
}

/* Rewards-to-go, whitened per episode: the arithmetic of gradient.advantages, in its order. `scratch` is (rows + 4 count). */
EXPORT void fedpg_advantages(
    int64_t rows, int64_t count, const double *rewards, const int64_t *episodes, double gamma, double epsilon,
    double *scratch, float *result) {
    double *to_go = scratch, *last = scratch + rows, *means = last + count, *squares = means + count,
           *lengths = squares + count;
    memset(last, 0, (size_t)count * 4 * sizeof(double));
    for (int64_t t = rows - 1; t >= 0; t--) to_go[t] = last[episodes[t]] = rewards[t] + gamma * last[episodes[t]];
    for (int64_t t = 0; t < rows; t++) means[episodes[t]] += to_go[t], lengths[episodes[t]] += 1.0;
    for (int64_t i = 0; i < count; i++) means[i] /= lengths[i];
    for (int64_t t = 0; t < rows; t++) {
        to_go[t] -= means[episodes[t]];
        squares[episodes[t]] += to_go[t] * to_go[t];
    }
    for (int64_t i = 0; i < count; i++) last[i] = whitening(lengths[i], means[i], squares[i], epsilon);
    for (int64_t t = 0; t < rows; t++) result[t] = (float)(to_go[t] * last[episodes[t]]);
}

#include "inner_loop.h"

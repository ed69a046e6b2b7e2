/* The network of `metta.rl.policy.Policy` and the loss of `metta.rl.ppo`, forward and backward, for one CPU.

Its plain twins are `Vocabulary.encode`, `TokenBatch.select`, `Policy.act` and `ppo.loss_gradient`. Samples go through
the network in tiles that stay in the caches: tokens -> features -> hidden -> outputs, and the same way back.

Widths are padded with zeros to a multiple of the vector length: `width` is the padded number of hidden units, `outputs`
the padded number of logits and, after them, the value. All matrices are row-major. */

#define _GNU_SOURCE /* for the affinity of threads */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#define ROWS 8
#else
#define LANES 8
#define ROWS 6
#endif

#define TILE 48 /* samples; a multiple of ROWS */
#define MEASURES 6
#define MAX_THREADS 64

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    int64_t hidden, actions, placeless, places, channels, directions;
    const int64_t *direction_of; /* [places] */
} Shape;

/* The parameters of the policy, or their gradient. */
typedef struct {
    float *placeless, *place, *direction, *bias;
    float *hidden_weight, *hidden_bias, *actor_weight, *actor_bias, *critic_weight, *critic_bias;
} Parameters;

typedef struct {
    const int32_t *rows; /* [tokens] */
    const float *weights;
    const int32_t *offsets; /* [samples + 1] */
} Tokens;

typedef struct {
    Tokens tokens;
    const int64_t *actions; /* [samples] each */
    const float *log_probs, *values, *returns;
} Batch;

typedef struct {
    float clip, value_clip, value_weight, entropy_weight;
    double size; /* by which sums over samples are divided */
} Loss;

/* The padded weights of the network, or their gradient. */
typedef struct {
    float *table;          /* [rows, width] */
    float *bias;           /* [width] */
    float *hidden;         /* [width out, width in] */
    float *hidden_bias;    /* [width] */
    float *head;           /* [outputs, width] */
    float *head_bias;      /* [outputs] */
} Weights;

static int64_t padded(int64_t number) { return (number + LANES - 1) / LANES * LANES; }
static int64_t num_rows(const Shape *shape) { return shape->placeless + shape->places * shape->channels; }

static int64_t weights_floats(const Shape *shape) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1);
    return (num_rows(shape) + 2 + width + outputs) * width + outputs;
}

static Weights weights_in(const Shape *shape, float *memory) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1);
    Weights at;
    at.table = memory;
    at.bias = at.table + num_rows(shape) * width;
    at.hidden = at.bias + width;
    at.hidden_bias = at.hidden + width * width;
    at.head = at.hidden_bias + width;
    at.head_bias = at.head + outputs * width;
    return at;
}

/* ---- Matrix products ---- */

static inline __attribute__((always_inline)) vec splat(float number) { return number - (vec){0}; }

/* c[rows, vectors * LANES] = (c if accumulates else 0) + a[rows, depth] b[depth, ...]. */
static inline __attribute__((always_inline)) void multiply_block(
    const int rows, const int vectors, int64_t depth, const float *a, int64_t a_row, int64_t a_column, const float *b,
    int64_t b_row, float *c, int64_t c_row, int accumulates) {
    vec sums[ROWS][2];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[row][v] = accumulates ? *(vec *)(c + row * c_row + v * LANES) : splat(0);
    for (int64_t k = 0; k < depth; k++) {
        const float *right = b + k * b_row, *left = a + k * a_column;
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                sums[row][v] += splat(left[row * a_row]) * *(const vec *)(right + v * LANES);
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) *(vec *)(c + row * c_row + v * LANES) = sums[row][v];
}

/* c[height, width] = (c if accumulates else 0) + a[height, depth] b[depth, width], where a[i, k] is at
 * a[i * a_row + k * a_column]. Height is even, width a multiple of LANES. */
static void multiply(
    int64_t height, int64_t width, int64_t depth, const float *a, int64_t a_row, int64_t a_column, const float *b,
    int64_t b_row, float *c, int accumulates) {
#define BLOCK(rows, vectors) \
    multiply_block( \
        rows, vectors, depth, a + i * a_row, a_row, a_column, b + j, b_row, c + i * width + j, width, accumulates)
    for (int64_t j = 0; j < width;) {
        int wide = width - j >= 2 * LANES;
        int64_t i = 0;
        for (; i + ROWS <= height; i += ROWS)
            if (wide) BLOCK(ROWS, 2);
            else BLOCK(ROWS, 1);
        for (; i < height; i += 2)
            if (wide) BLOCK(2, 2);
            else BLOCK(2, 1);
        j += wide ? 2 * LANES : LANES;
    }
#undef BLOCK
}

static void add_columns(int64_t height, int64_t width, const float *matrix, float *sums) {
    for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++) sums[j] += matrix[i * width + j];
}

static void add_bias_and_clip_at_zero(int64_t height, int64_t width, const float *bias, float *matrix) {
    for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++) {
            float sum = matrix[i * width + j] + bias[j];
            matrix[i * width + j] = sum > 0 || sum != sum ? sum : 0; /* keeps NaN */
        }
}

/* The derivative of clipping at zero. */
static void clear_where_clipped(int64_t size, const float *activations, float *slopes) {
    for (int64_t i = 0; i < size; i++) slopes[i] = activations[i] > 0 ? slopes[i] : 0;
}

/* ---- Tokens ---- */

/* Look up the tokens of observations [batch, tokens, 3] of (location, feature, value), whose empty ones come last.
 * The first goes to where offsets[0] says. */
void encode(
    const uint8_t *observations, int64_t batch, int64_t tokens, const float *weight_of, const int32_t *channel_of,
    const int32_t *has_place, const int32_t *first_row_of, int32_t *rows, float *weights, int32_t *offsets) {
    int32_t count = offsets[0];
    for (int64_t i = 0; i < batch; i++) {
        const uint8_t *token = observations + i * tokens * 3, *end = token + tokens * 3;
        for (; token < end && token[0] != 0xFF; token += 3) {
            int32_t meaning = token[1] << 8 | token[2];
            rows[count] = first_row_of[token[0]] * has_place[meaning] + channel_of[meaning];
            weights[count] = weight_of[meaning];
            count += weight_of[meaning] > 0;
        }
        offsets[i + 1] = count;
    }
}

/* Copy the tokens of some samples one after the other, to where `offsets` says. */
void select_tokens(
    const Tokens *tokens, const int64_t *indices, int64_t number, const int32_t *offsets, int32_t *rows,
    float *weights) {
    for (int64_t i = 0; i < number; i++) {
        int32_t start = tokens->offsets[indices[i]], length = offsets[i + 1] - offsets[i];
        memcpy(rows + offsets[i], tokens->rows + start, sizeof(int32_t) * length);
        memcpy(weights + offsets[i], tokens->weights + start, sizeof(float) * length);
    }
}

/* sums[width] = the rows of the table of one sample's tokens, times their weights. */
static void sum_rows(const Tokens *tokens, int64_t sample, const float *table, int64_t width, float *sums) {
    int32_t start = tokens->offsets[sample], stop = tokens->offsets[sample + 1];
    int64_t j = 0;
    for (; j + 8 * LANES <= width; j += 8 * LANES) {
        vec sum[8] = {{0}};
        for (int32_t token = start; token < stop; token++) {
            const float *row = table + tokens->rows[token] * width + j;
            vec weight = splat(tokens->weights[token]);
#pragma GCC unroll 8
            for (int v = 0; v < 8; v++) sum[v] += weight * *(const vec *)(row + v * LANES);
        }
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) *(vec *)(sums + j + v * LANES) = sum[v];
    }
    for (; j < width; j += LANES) {
        vec sum = {0};
        for (int32_t token = start; token < stop; token++)
            sum += splat(tokens->weights[token]) * *(const vec *)(table + tokens->rows[token] * width + j);
        *(vec *)(sums + j) = sum;
    }
}

/* The derivative of `sum_rows`: add slopes[width] to the rows of one sample's tokens, times their weights. */
static void add_to_rows(const Tokens *tokens, int64_t sample, const float *slopes, int64_t width, float *table) {
    for (int32_t token = tokens->offsets[sample]; token < tokens->offsets[sample + 1]; token++) {
        float *row = table + tokens->rows[token] * width;
        vec weight = splat(tokens->weights[token]);
        for (int64_t j = 0; j < width; j += LANES) *(vec *)(row + j) += weight * *(const vec *)(slopes + j);
    }
}

/* ---- Parameters as padded weights, and the gradient back ---- */

/* The columns of the padded matrices that a thread works on, so that threads share no vector: [first, stop). */
typedef struct {
    int64_t first, stop;
} Columns;

static Columns columns_of(const Shape *shape, int64_t thread, int64_t threads) {
    int64_t vectors = padded(shape->hidden) / LANES;
    return (Columns){thread * vectors / threads * LANES, (thread + 1) * vectors / threads * LANES};
}

/* Floats of memory for `pack`. Zeroed before its first use. */
int64_t packed_floats(const Shape *shape) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1);
    return weights_floats(shape) + width * width + width * outputs;
}

static void copy_columns(int64_t height, Columns columns, int64_t width, const float *from, int64_t to_width, float *to) {
    int64_t stop = columns.stop < width ? columns.stop : width;
    if (columns.first >= stop) return;
    for (int64_t i = 0; i < height; i++)
        memcpy(to + i * to_width + columns.first, from + i * width + columns.first, sizeof(float) * (stop - columns.first));
}

static void transpose_columns(int64_t height, Columns columns, int64_t width, const float *from, float *to) {
    for (int64_t j = columns.first; j < columns.stop; j++)
        for (int64_t i = 0; i < height; i++) to[j * height + i] = from[i * width + j];
}

/* Write some columns of the network's padded weights, and of the transposed ones of its two dense layers after them. */
static void pack_columns(const Shape *shape, const Parameters *from, float *memory, Columns columns) {
    int64_t hidden = shape->hidden, width = padded(hidden), outputs = padded(shape->actions + 1);
    int64_t stop = columns.stop < hidden ? columns.stop : hidden;
    Weights to = weights_in(shape, memory);
    copy_columns(shape->placeless, columns, hidden, from->placeless, width, to.table);
    float *row = to.table + shape->placeless * width;
    for (int64_t place = 0; place < shape->places; place++) {
        const float *here = from->place + place * shape->channels * hidden;
        const float *there = from->direction + shape->direction_of[place] * shape->channels * hidden;
        for (int64_t channel = 0; channel < shape->channels; channel++, row += width)
            for (int64_t j = columns.first; j < stop; j++)
                row[j] = here[channel * hidden + j] + there[channel * hidden + j];
    }
    copy_columns(1, columns, hidden, from->bias, width, to.bias);
    copy_columns(hidden, columns, hidden, from->hidden_weight, width, to.hidden);
    copy_columns(1, columns, hidden, from->hidden_bias, width, to.hidden_bias);
    copy_columns(shape->actions, columns, hidden, from->actor_weight, width, to.head);
    copy_columns(1, columns, hidden, from->critic_weight, width, to.head + shape->actions * width);
    if (columns.first == 0 && stop > 0) {
        memcpy(to.head_bias, from->actor_bias, sizeof(float) * shape->actions);
        to.head_bias[shape->actions] = from->critic_bias[0];
    }
    float *transposed = memory + weights_floats(shape);
    transpose_columns(width, columns, width, to.hidden, transposed);
    transpose_columns(outputs, columns, width, to.head, transposed + width * width);
}

/* Write the network's padded weights, and after them the transposed ones of its two dense layers. */
void pack(const Shape *shape, const Parameters *from, float *memory) {
    pack_columns(shape, from, memory, columns_of(shape, 0, 1));
}

/* ---- The network ---- */

/* The activations of the network for a tile of samples, and the derivatives of the loss by them. */
typedef struct {
    float *features, *hidden, *outputs; /* [TILE, width], [TILE, width], [TILE, outputs] */
    float *feature_slopes, *hidden_slopes, *output_slopes;
} Tile;

static int64_t tile_floats(const Shape *shape) {
    return 2 * TILE * (2 * padded(shape->hidden) + padded(shape->actions + 1));
}

static Tile tile_in(const Shape *shape, float *memory) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1);
    Tile at;
    at.features = memory;
    at.hidden = at.features + TILE * width;
    at.outputs = at.hidden + TILE * width;
    at.feature_slopes = at.outputs + TILE * outputs;
    at.hidden_slopes = at.feature_slopes + TILE * width;
    at.output_slopes = at.hidden_slopes + TILE * width;
    return at;
}

/* Compute the outputs of `count` samples. The rows after them, up to `height`, a multiple of ROWS, hold those of an
 * observation without tokens. */
static void forward(
    const Shape *shape, float *packed, const Tokens *tokens, const int64_t *samples, int64_t count, int64_t height,
    const Tile *tile) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1);
    Weights weights = weights_in(shape, packed);
    const float *hidden_transposed = packed + weights_floats(shape), *head_transposed = hidden_transposed + width * width;
    for (int64_t i = 0; i < count; i++)
        sum_rows(tokens, samples[i], weights.table, width, tile->features + i * width);
    memset(tile->features + count * width, 0, sizeof(float) * (height - count) * width);
    add_bias_and_clip_at_zero(height, width, weights.bias, tile->features);
    multiply(height, width, width, tile->features, width, 1, hidden_transposed, width, tile->hidden, 0);
    add_bias_and_clip_at_zero(height, width, weights.hidden_bias, tile->hidden);
    multiply(height, outputs, width, tile->hidden, width, 1, head_transposed, outputs, tile->outputs, 0);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < outputs; j++) tile->outputs[i * outputs + j] += weights.head_bias[j];
}

/* Add the gradient of the weights, given the slopes of the loss by the outputs; rows after `count` have slopes of 0. */
static void backward(
    const Shape *shape, float *packed, const Tokens *tokens, const int64_t *samples, int64_t count, const Tile *tile,
    const Weights *gradient) {
    int64_t width = padded(shape->hidden), outputs = padded(shape->actions + 1), used = shape->actions + 1;
    Weights weights = weights_in(shape, packed);
    multiply(outputs, width, TILE, tile->output_slopes, 1, outputs, tile->hidden, width, gradient->head, 1);
    add_columns(TILE, outputs, tile->output_slopes, gradient->head_bias);
    multiply(TILE, width, used, tile->output_slopes, outputs, 1, weights.head, width, tile->hidden_slopes, 0);
    clear_where_clipped(TILE * width, tile->hidden, tile->hidden_slopes);
    multiply(width, width, TILE, tile->hidden_slopes, 1, width, tile->features, width, gradient->hidden, 1);
    add_columns(TILE, width, tile->hidden_slopes, gradient->hidden_bias);
    multiply(TILE, width, width, tile->hidden_slopes, width, 1, weights.hidden, width, tile->feature_slopes, 0);
    clear_where_clipped(TILE * width, tile->features, tile->feature_slopes);
    add_columns(TILE, width, tile->feature_slopes, gradient->bias);
    for (int64_t i = 0; i < count; i++)
        add_to_rows(tokens, samples[i], tile->feature_slopes + i * width, width, gradient->table);
}

/* Probabilities times their sum, which is returned; `largest` is the largest logit. */
static float unnormalised(int64_t number, const float *logits, float *largest, float *probabilities) {
    float sum = 0;
    *largest = logits[0];
    for (int64_t j = 1; j < number; j++)
        if (logits[j] > *largest) *largest = logits[j];
    for (int64_t j = 0; j < number; j++) sum += probabilities[j] = expf(logits[j] - *largest);
    return sum;
}

/* Floats of memory for `act`. */
int64_t act_floats(const Shape *shape) { return tile_floats(shape); }

/* Values [number] of observations, and actions drawn by `uniforms` with their log-probabilities, unless those are NULL. */
void act(
    const Shape *shape, float *packed, const Tokens *tokens, int64_t number, const float *uniforms, int32_t *actions,
    float *log_probs, float *values, float *memory) {
    int64_t outputs = padded(shape->actions + 1);
    Tile tile = tile_in(shape, memory);
    int64_t samples[TILE];
    for (int64_t first = 0; first < number; first += TILE) {
        int64_t count = number - first < TILE ? number - first : TILE;
        for (int64_t i = 0; i < count; i++) samples[i] = first + i;
        forward(shape, packed, tokens, samples, count, (count + ROWS - 1) / ROWS * ROWS, &tile);
        for (int64_t i = 0; i < count; i++) {
            const float *logits = tile.outputs + i * outputs;
            values[first + i] = logits[shape->actions];
            if (!actions) continue;
            float largest, *chances = tile.output_slopes;
            float sum = unnormalised(shape->actions, logits, &largest, chances);
            float threshold = uniforms[first + i] * sum, reached = chances[0];
            int32_t action = 0;
            while (action < shape->actions - 1 && reached <= threshold) reached += chances[++action];
            actions[first + i] = action;
            log_probs[first + i] = logits[action] - largest - logf(sum);
        }
    }
}

/* ---- Playing ---- */

typedef struct {
    const float *weight_of;
    const int32_t *channel_of, *has_place, *first_row_of;
} Tables;

/* An environment that is played. */
typedef struct {
    const Shape *shape;
    float *packed;
    Tables tables;
    int64_t agents, tokens; /* tokens of an observation */
    /* What the environment reads and writes, [agents] each. */
    const uint8_t *observed;
    int32_t *chosen;
    const float *rewarded;
    const uint8_t *terminated, *truncated;
    /* The batch of experience: tokens one after the other; and [steps, agents] each, with one more step of values. */
    int32_t *rows;
    float *weights;
    int32_t *offsets;
    const float *uniforms;
    int64_t *actions;
    float *log_probs, *values, *rewards;
    uint8_t *terminals, *truncations;
    float *memory; /* of `act` */
} Seat;

/* Choose the actions of a step, and record what they were chosen from. */
void choose(const Seat *seat, int64_t step) {
    int64_t agents = seat->agents, first = step * agents;
    const Tables *tables = &seat->tables;
    Tokens tokens = {seat->rows, seat->weights, seat->offsets + first};
    encode(
        seat->observed, agents, seat->tokens, tables->weight_of, tables->channel_of, tables->has_place,
        tables->first_row_of, seat->rows, seat->weights, seat->offsets + first);
    act(
        seat->shape, seat->packed, &tokens, agents, seat->uniforms + first, seat->chosen, seat->log_probs + first,
        seat->values + first, seat->memory);
    for (int64_t i = 0; i < agents; i++) seat->actions[first + i] = seat->chosen[i];
}

/* Record what followed the actions of a step. Returns whether an episode was truncated. */
int32_t record(const Seat *seat, int64_t step) {
    int64_t agents = seat->agents, first = step * agents;
    int32_t truncated = 0;
    for (int64_t i = 0; i < agents; i++) {
        seat->rewards[first + i] = seat->rewarded[i];
        seat->terminals[first + i] = seat->terminated[i];
        seat->truncations[first + i] = seat->truncated[i];
        truncated |= seat->truncated[i];
    }
    return truncated;
}

/* ---- The loss ---- */

/* Write the slopes of the loss by the outputs of one sample, and add to the sums that are measured. See `ppo_loss`. */
static void loss_of_sample(
    const Shape *shape, const Loss *loss, const Batch *batch, int64_t sample, float advantage, const float *logits,
    float *slopes, double *measures) {
    int64_t number = shape->actions, action = batch->actions[sample];
    float largest, sum = unnormalised(number, logits, &largest, slopes), log_sum = largest + logf(sum), entropy = 0;
    for (int64_t j = 0; j < number; j++) {
        slopes[j] /= sum;
        entropy -= slopes[j] * (logits[j] - log_sum);
    }
    float size = (float)loss->size;

    float log_ratio = logits[action] - log_sum - batch->log_probs[sample], ratio = expf(log_ratio);
    float clipped_ratio = fminf(fmaxf(ratio, 1 - loss->clip), 1 + loss->clip);
    float surrogate = ratio * advantage, clipped_surrogate = clipped_ratio * advantage;
    int counts = surrogate <= clipped_surrogate;
    float policy_slope = counts ? -surrogate / size : 0, entropy_slope = -loss->entropy_weight / size;

    float value = logits[number], before = batch->values[sample], target = batch->returns[sample];
    float clipped_value = fminf(fmaxf(value, before - loss->value_clip), before + loss->value_clip);
    float square = (value - target) * (value - target);
    float clipped_square = (clipped_value - target) * (clipped_value - target);

    for (int64_t j = 0; j < number; j++)
        slopes[j] *= -policy_slope - entropy_slope * (logits[j] - log_sum + entropy);
    slopes[action] += policy_slope;
    slopes[number] = square >= clipped_square ? (value - target) * (loss->value_weight / size) : 0;

    float policy_loss = -(counts || surrogate != surrogate ? surrogate : clipped_surrogate);
    float value_loss = 0.5f * (square >= clipped_square || square != square ? square : clipped_square);
    measures[0] += policy_loss + loss->value_weight * value_loss - loss->entropy_weight * entropy;
    measures[1] += policy_loss;
    measures[2] += value_loss;
    measures[3] += entropy;
    measures[4] += (ratio - 1) - log_ratio;
    measures[5] += fabsf(ratio - 1) > loss->clip;
}

/* ---- Learning ---- */

/* The minibatches of one pass, one after the other. */
typedef struct {
    int64_t number;
    const int64_t *samples; /* of all, and their advantages */
    const float *advantages;
    const int64_t *bounds; /* [number + 1], where each begins and ends */
    const double *sizes;   /* [number], by which sums over each are divided */
} Minibatches;

/* Adam and its state. */
typedef struct {
    double learning_rate, beta1, beta2, eps, weight_decay, max_grad_norm;
    int64_t decoupled; /* whether weights decay apart from the gradient */
    int64_t floats;
    float *weights, *mean, *square; /* [floats]: all parameters, decaying means of their gradient and of its square */
    float *steps, *diverged; /* how many were made; and whether something was not finite, after which none is made */
} Adam;

/* Threads that learn together. */
typedef struct {
    const Shape *shape;
    Parameters parameters, gradient; /* the gradient lies in one piece, from `placeless` on */
    float *packed;
    const Batch *batch;
    const Loss *loss;
    const Minibatches *minibatches;
    const Adam *adam; /* NULL only computes gradients */
    float *memory;    /* of each thread, `part_floats` */
    float *measured;  /* [minibatches, MEASURES + 1], and the norm of the gradient */
    double measures[MAX_THREADS][MEASURES], squares[MAX_THREADS];
    int64_t threads; /* 0 until it is known how many started */
    int64_t arrived, round;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int core; /* of the first thread when it started the others; -1 if unknown */
} Team;

static int64_t part_floats(const Shape *shape) { return weights_floats(shape) + tile_floats(shape); }

#define SPINS 4000 /* looks before a thread sleeps: some ten microseconds, less than to sleep and wake */

/* Wait until a number is no longer `from`. Its thread changes it by `change`. */
static void wait_for_change(Team *team, const int64_t *number, int64_t from) {
    for (int64_t i = 0; i < SPINS; i++) {
        if (__atomic_load_n(number, __ATOMIC_ACQUIRE) != from) return;
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&team->mutex); /* other programs need this core, perhaps one for the thread that is awaited */
    while (__atomic_load_n(number, __ATOMIC_ACQUIRE) == from) pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void change(Team *team, int64_t *number, int64_t to) {
    pthread_mutex_lock(&team->mutex);
    __atomic_store_n(number, to, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
}

/* Wait until all threads have come here. */
static void meet(Team *team) {
    int64_t round = __atomic_load_n(&team->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == team->threads) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        change(team, &team->round, round + 1);
    } else wait_for_change(team, &team->round, round);
}

/* Compute the gradient of a thread's part of a minibatch, of the padded weights, into the thread's memory. */
static void gradient_of_part(Team *team, int64_t thread, int64_t minibatch) {
    const Shape *shape = team->shape;
    const Minibatches *all = team->minibatches;
    int64_t begin = all->bounds[minibatch], size = all->bounds[minibatch + 1] - begin;
    int64_t stop = begin + (thread + 1) * size / team->threads;
    int64_t outputs = padded(shape->actions + 1);
    float *memory = team->memory + thread * part_floats(shape);
    double *measures = team->measures[thread];
    Loss loss = *team->loss;
    loss.size = all->sizes[minibatch];
    Weights gradient = weights_in(shape, memory);
    Tile tile = tile_in(shape, memory + weights_floats(shape));
    memset(memory, 0, sizeof(float) * weights_floats(shape));
    memset(measures, 0, sizeof(double) * MEASURES);
    for (int64_t first = begin + thread * size / team->threads; first < stop; first += TILE) {
        int64_t count = stop - first < TILE ? stop - first : TILE;
        const int64_t *samples = all->samples + first;
        forward(shape, team->packed, &team->batch->tokens, samples, count, TILE, &tile);
        memset(tile.output_slopes, 0, sizeof(float) * TILE * outputs);
        for (int64_t i = 0; i < count; i++)
            loss_of_sample(
                shape, &loss, team->batch, samples[i], all->advantages[first + i], tile.outputs + i * outputs,
                tile.output_slopes + i * outputs, measures);
        backward(shape, team->packed, &team->batch->tokens, samples, count, &tile, &gradient);
    }
}

/* to[columns] = the sum over threads of a row of the gradient of the padded weights. */
static void add_parts(const Team *team, const float *row, int64_t first, int64_t stop, float *to) {
    int64_t stride = part_floats(team->shape);
    for (int64_t j = first; j < stop; j++) to[j] = row[j];
    for (int64_t thread = 1; thread < team->threads; thread++)
        for (int64_t j = first; j < stop; j++) to[j] += row[thread * stride + j];
}

static void add_matrix(const Team *team, const float *rows, int64_t height, int64_t first, int64_t stop, float *to) {
    int64_t hidden = team->shape->hidden, width = padded(hidden);
    for (int64_t i = 0; i < height; i++) add_parts(team, rows + i * width, first, stop, to + i * hidden);
}

/* Write some columns of the gradient of the parameters, given those of the padded weights in the threads' memory. */
static void add_columns_of_parts(const Team *team, Columns columns) {
    const Shape *shape = team->shape;
    const Parameters *to = &team->gradient;
    int64_t hidden = shape->hidden, width = padded(hidden), channels = shape->channels;
    int64_t first = columns.first, stop = columns.stop < hidden ? columns.stop : hidden;
    Weights from = weights_in(shape, team->memory);
    add_matrix(team, from.table, shape->placeless, first, stop, to->placeless);
    for (int64_t i = 0; i < shape->directions * channels; i++)
        for (int64_t j = first; j < stop; j++) to->direction[i * hidden + j] = 0;
    const float *rows = from.table + shape->placeless * width;
    for (int64_t place = 0; place < shape->places; place++, rows += channels * width) {
        float *here = to->place + place * channels * hidden;
        float *there = to->direction + shape->direction_of[place] * channels * hidden;
        add_matrix(team, rows, channels, first, stop, here);
        for (int64_t i = 0; i < channels; i++)
            for (int64_t j = first; j < stop; j++) there[i * hidden + j] += here[i * hidden + j];
    }
    add_matrix(team, from.bias, 1, first, stop, to->bias);
    add_matrix(team, from.hidden, hidden, first, stop, to->hidden_weight);
    add_matrix(team, from.hidden_bias, 1, first, stop, to->hidden_bias);
    add_matrix(team, from.head, shape->actions, first, stop, to->actor_weight);
    add_matrix(team, from.head + shape->actions * width, 1, first, stop, to->critic_weight);
    if (first > 0 || stop == 0) return;
    add_parts(team, from.head_bias, 0, shape->actions, to->actor_bias);
    add_parts(team, from.head_bias + shape->actions, 0, 1, to->critic_bias);
}

static double sum_of_squares(const float *numbers, int64_t first, int64_t stop) {
    vec sums = {0};
    double sum = 0;
    for (; first + LANES <= stop; first += LANES) {
        vec part = *(const vec *)(numbers + first);
        sums += part * part;
    }
    for (; first < stop; first++) sum += numbers[first] * numbers[first];
    for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
    return sum;
}

/* Write the measures of a minibatch and the norm of its gradient, which is returned. All threads compute the same. */
static double measure(Team *team, int64_t thread, int64_t minibatch) {
    double sums[MEASURES] = {0}, square = 0;
    int finite = 1;
    for (int64_t i = 0; i < team->threads; i++) {
        for (int j = 0; j < MEASURES; j++) sums[j] += team->measures[i][j];
        square += team->squares[i];
    }
    if (thread > 0) return sqrt(square);
    float *measured = team->measured + minibatch * (MEASURES + 1);
    for (int j = 0; j < MEASURES; j++) measured[j] = (float)(sums[j] / team->minibatches->sizes[minibatch]);
    measured[MEASURES] = (float)sqrt(square);
    for (int j = 0; j <= MEASURES; j++) finite &= isfinite(measured[j]) != 0;
    if (!finite) *team->adam->diverged = 1;
    return sqrt(square);
}

/* Change some of the parameters by the clipped gradient (arXiv 1412.6980, algorithm 1; arXiv 1711.05101, algorithm 2). */
static void step_parameters(const Team *team, double norm, int64_t first, int64_t stop) {
    const Adam *adam = team->adam;
    double steps = *adam->steps + 1;
    double clip = fmin(1, adam->max_grad_norm / (norm + 1e-6));
    float scale = (float)clip, decay = (float)adam->weight_decay, beta1 = (float)adam->beta1, beta2 = (float)adam->beta2;
    float rest1 = (float)(1 - adam->beta1), rest2 = (float)(1 - adam->beta2), eps = (float)adam->eps;
    float kept = adam->decoupled ? (float)(1 - adam->learning_rate * adam->weight_decay) : 1;
    float step = (float)(adam->learning_rate / (1 - pow(adam->beta1, steps)));
    float correction = (float)sqrt(1 - pow(adam->beta2, steps));
    if (adam->decoupled) decay = 0;
    float *restrict weights = adam->weights, *restrict mean = adam->mean, *restrict square = adam->square;
    const float *restrict gradient = team->gradient.placeless;
    for (int64_t i = first; i < stop; i++) {
        float slope = gradient[i] * scale + decay * weights[i];
        mean[i] = beta1 * mean[i] + rest1 * slope;
        square[i] = beta2 * square[i] + rest2 * slope * slope;
        weights[i] = weights[i] * kept - step * mean[i] / (sqrtf(square[i]) / correction + eps);
    }
}

/* What one thread does in a pass. */
static void learn_in_team(Team *team, int64_t thread) {
    const Shape *shape = team->shape;
    Columns columns = columns_of(shape, thread, team->threads);
    int64_t floats = team->adam ? team->adam->floats : 0;
    int64_t first = thread * floats / team->threads, stop = (thread + 1) * floats / team->threads;
    for (int64_t minibatch = 0; minibatch < team->minibatches->number; minibatch++) {
        pack_columns(shape, &team->parameters, team->packed, columns);
        meet(team);
        gradient_of_part(team, thread, minibatch);
        meet(team);
        add_columns_of_parts(team, columns);
        if (!team->adam) continue;
        meet(team);
        team->squares[thread] = sum_of_squares(team->gradient.placeless, first, stop);
        meet(team);
        double norm = measure(team, thread, minibatch);
        meet(team);
        if (!*team->adam->diverged) step_parameters(team, norm, first, stop);
        meet(team);
        if (thread == 0 && !*team->adam->diverged) *team->adam->steps += 1;
    }
}

typedef struct {
    Team *team;
    int64_t thread;
} Member;

/* Leave a core for another one that this thread may use, if there is one. A thread may start on the core of the one that
 * started it, because another core was busy until just before; both would then wait for each other in turn. */
static void leave_core(int core) {
#ifdef __linux__
    cpu_set_t allowed, others;
    if (core < 0 || sched_getcpu() != core || sched_getaffinity(0, sizeof allowed, &allowed)) return;
    others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others)) sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)core;
#endif
}

static void *join_team(void *argument) {
    Member *member = argument;
    leave_core(member->team->core);
    wait_for_change(member->team, &member->team->threads, 0);
    learn_in_team(member->team, member->thread);
    return 0;
}

/* Let as many threads as can be started, and at most `threads`, do a pass together. */
static void learn_together(Team *team, int64_t threads) {
    Member members[MAX_THREADS];
    pthread_t handles[MAX_THREADS];
    int64_t started = 1;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    pthread_mutex_init(&team->mutex, 0);
    pthread_cond_init(&team->changed, 0);
#ifdef __linux__
    team->core = sched_getcpu();
#else
    team->core = -1;
#endif
    for (; started < threads; started++) {
        members[started] = (Member){team, started};
        if (pthread_create(&handles[started], 0, join_team, &members[started])) break;
    }
    change(team, &team->threads, started);
    learn_in_team(team, 0);
    for (int64_t i = 1; i < started; i++) pthread_join(handles[i], 0);
    pthread_mutex_destroy(&team->mutex);
    pthread_cond_destroy(&team->changed);
}

/* Floats of memory for `loss_gradient` and `learn`. */
int64_t gradient_floats(const Shape *shape, int64_t threads) { return threads * part_floats(shape); }

/* Write the gradient of the loss of a minibatch, and the means of the `ppo.MEASURES`. */
void loss_gradient(
    const Shape *shape, float *packed, const Batch *batch, const int64_t *samples, const float *advantages,
    int64_t number, const Loss *loss, int64_t threads, float *memory, const Parameters *parameters,
    const Parameters *gradient, float *measures) {
    int64_t bounds[2] = {0, number};
    Minibatches one = {1, samples, advantages, bounds, &loss->size};
    Team team = {.shape = shape, .parameters = *parameters, .gradient = *gradient, .packed = packed, .batch = batch,
                 .loss = loss, .minibatches = &one, .memory = memory};
    learn_together(&team, threads);
    for (int j = 0; j < MEASURES; j++) {
        double sum = 0;
        for (int64_t i = 0; i < team.threads; i++) sum += team.measures[i][j];
        measures[j] = (float)(sum / loss->size);
    }
}

/* Change the parameters by the gradient of each minibatch in turn. See `ppo.Learner.learn`. */
void learn(
    const Shape *shape, float *packed, const Batch *batch, const Minibatches *minibatches, const Loss *loss,
    const Adam *adam, int64_t threads, float *memory, const Parameters *parameters, const Parameters *gradient,
    float *measured) {
    Team team = {.shape = shape, .parameters = *parameters, .gradient = *gradient, .packed = packed, .batch = batch,
                 .loss = loss, .minibatches = minibatches, .adam = adam, .memory = memory, .measured = measured};
    learn_together(&team, threads);
}

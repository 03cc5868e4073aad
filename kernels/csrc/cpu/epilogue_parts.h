/* How an epilogue is cut into parts, and how a part runs.
 *
 * Parts are the same whatever the number of threads: a few samples (channels last) or planes
 * (channels first), or one chunk of the pixels of some. A sum over pixels leaves a slot for each
 * sample, chunk and channel; slots are added in order in double. Within a slot, float sums run over
 * a few hundred terms at most.
 */
#ifndef KERNELS_CPU_EPILOGUE_PARTS_H
#define KERNELS_CPU_EPILOGUE_PARTS_H

#include "epilogue_rows.h"

namespace kernels::epilogue {

constexpr int64_t PART = 32768;           // elements of a part, about
constexpr int64_t FEWEST_SHARED = 32768;  // fewer elements do not pay for starting threads

enum { FORWARD, BACKWARD, DOUBLE_BACKWARD };

/* One call of any of the three functions. Null: 0 as an input, not wanted as an output. */
struct Request {
    const KernelsEpilogue *op;
    int pass;
    const void *x, *dy, *gdx, *gdd, *gdstrength, *gdb;
    void *out, *gx;
    void *samples, *scalar, *channels;  // dd, dstrength, db or gd, gstrength, gb
};

/* How the work is cut. Units are samples (channels last) or planes (channels first). */
struct Plan {
    int64_t n, c, p;
    bool last, full;
    bool shared_noise;      // the same in each sample
    int64_t repeat;         // channels last: pixels in one row of a block
    int64_t units, group;   // all, and those of one part
    int64_t chunks, chunk;  // chunks of a unit, pixels of a chunk
    int64_t parts;
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static bool is_full(const Request &r) {
    return !is_piecewise_linear(r.op->act) || r.op->d || r.op->noise || r.gdd || r.gdstrength ||
           r.gx || r.samples;
}

static Plan make_plan(const Request &r) {
    const KernelsEpilogue &op = *r.op;
    Plan plan = {};
    plan.n = op.n, plan.c = op.c, plan.p = op.p;
    plan.full = is_full(r);
    plan.shared_noise = op.noise_n == 1;
    plan.last = op.layout == KERNELS_CHANNELS_LAST || op.p == 1;
    const bool alike = !op.d && !r.gdd && !r.samples && (!op.noise || op.noise_n == op.n);
    if (plan.last && alike) {  // nothing tells samples apart
        plan.p *= plan.n;
        plan.n = 1;
    }
    plan.repeat = 1;
    int64_t budget = PART;
    if (plan.last && plan.c > 0) {
        // Short rows cost; but a packet has one noise. (SEVERAL_NOISES)
        const bool several = op.dtype != KERNELS_BFLOAT16 && plan.c % Packet<float>::COUNT == 0;
        if (!op.noise || several) {
            plan.repeat = std::max<int64_t>(1, std::min(TILE / plan.c, plan.p));
        }
        budget = std::max<int64_t>(1, std::min(PART / plan.c, TILE * plan.repeat));
    }
    plan.chunks = ceil_div(plan.p, plan.last ? budget : PLANE_TILE);
    plan.chunk = plan.chunks ? ceil_div(plan.p, plan.chunks) : 0;
    plan.group = plan.chunk ? std::max<int64_t>(1, budget / plan.chunk) : 1;
    plan.units = plan.last ? plan.n : plan.n * plan.c;
    plan.parts = plan.c ? ceil_div(plan.units, plan.group) * plan.chunks : 0;
    return plan;
}

template <class T>
struct Task {
    using A = Accumulation<T>;
    Plan plan;
    Constants<A> constants;
    BlockFunction<T> run;
    Streams<T> streams;
    const A *d, *b, *gdd, *gdb, *noise;
    double *scalars;        // of each part
    A *channels, *samples;  // slots [n, chunks, c]; null: not wanted
};

template <class T>
static T *at(T *base, int64_t offset) {
    return base ? base + offset : nullptr;
}

template <class T>
static Block<T> block_at(const Task<T> &task, int64_t offset) {
    const Streams<T> &s = task.streams;
    Block<T> block = {};
    block.streams = {at(s.x, offset), at(s.dy, offset), at(s.gdx, offset), at(s.out, offset),
                     at(s.gx, offset)};
    return block;
}

template <class T>
static const Accumulation<T> *noise_at(const Task<T> &task, int64_t sample, int64_t pixel) {
    return at(task.noise, (task.plan.shared_noise ? 0 : sample) * task.plan.p + pixel);
}

/* Pixels [begin, end) of the units [first, last). */
struct Range {
    int64_t first, last, chunk, begin, end;
};

static Range range_of(const Plan &plan, int64_t part) {
    const int64_t first = part / plan.chunks * plan.group, chunk = part % plan.chunks;
    return {first, std::min(plan.units, first + plan.group), chunk, chunk * plan.chunk,
            std::min(plan.p, (chunk + 1) * plan.chunk)};
}

/* Rows of operands and sums over `width` channels, repeated for each pixel of a row. */
template <class T>
struct Columns {
    using A = Accumulation<T>;
    alignas(64) A d[TILE], b[TILE], gdd[TILE], gdb[TILE], channels[TILE], samples[TILE];
    int64_t width, repeat;

    // Every STEP-th channel has its column beside that of the one before.
    static constexpr int64_t STEP = Packet<T>::VECTORS;

    void fill(A *row, const A *values, A otherwise) const {
        std::fill_n(row, TILE, otherwise);  // also what a last packet reads behind the row
        for (int64_t k = 0; values && k < repeat; ++k) {
            for (int64_t first = 0; first < STEP; ++first) {
                A *target = row + column<T>(k * width + first);
                for (int64_t i = first; i < width; i += STEP) *target++ = values[i];
            }
        }
    }

    void fold(const A *row, A *slot) const {
        if (!slot) return;
        double sums[TILE] = {};
        for (int64_t k = 0; k < repeat; ++k) {
            for (int64_t first = 0; first < STEP; ++first) {
                const A *source = row + column<T>(k * width + first);
                for (int64_t i = first; i < width; i += STEP) sums[i] += *source++;
            }
        }
        for (int64_t i = 0; i < width; ++i) slot[i] = static_cast<A>(sums[i]);
    }
};

/* The channels of `columns`, from c0 on, in the pixels of a range. */
template <class T>
static double run_columns(const Task<T> &task, const Range &range, int64_t c0,
                          Columns<T> &columns) {
    const Plan &plan = task.plan;
    const int64_t pixels = range.end - range.begin, left = pixels % columns.repeat;
    double scalar = 0;
    columns.fill(columns.b, at(task.b, c0), 0);
    columns.fill(columns.gdb, at(task.gdb, c0), 0);
    for (int64_t s = range.first; s < range.last; ++s) {
        columns.fill(columns.d, at(task.d, s * plan.c + c0), 1);
        columns.fill(columns.gdd, at(task.gdd, s * plan.c + c0), 0);
        std::fill_n(columns.channels, TILE, 0);
        std::fill_n(columns.samples, TILE, 0);
        const int64_t offset = (s * plan.p + range.begin) * plan.c + c0;
        Block<T> block = block_at(task, offset);
        block.d = columns.d, block.b = columns.b, block.gdd = columns.gdd, block.gdb = columns.gdb;
        block.channels = columns.channels, block.samples = columns.samples;
        block.noise = noise_at(task, s, range.begin);
        block.rows = pixels / columns.repeat;
        block.width = columns.width * columns.repeat;
        block.pitch = plan.c * columns.repeat;
        block.span = block.noise ? columns.width : block.width;
        task.run(task.constants, block);
        if (left) {
            block.streams = block_at(task, offset + (pixels - left) * plan.c).streams;
            block.noise = noise_at(task, s, range.end - left);
            block.rows = 1;
            block.width = columns.width * left;
            block.span = block.noise ? columns.width : block.width;
            task.run(task.constants, block);
        }
        scalar += block.scalar;
        const int64_t slot = (s * plan.chunks + range.chunk) * plan.c + c0;
        columns.fold(columns.channels, at(task.channels, slot));
        columns.fold(columns.samples, at(task.samples, slot));
    }
    return scalar;
}

template <class T>
static double run_samples(const Task<T> &task, const Range &range) {
    Columns<T> columns;
    double scalar = 0;
    for (int64_t c0 = 0; c0 < task.plan.c; c0 += TILE) {
        columns.width = std::min(TILE, task.plan.c - c0);
        columns.repeat = task.plan.repeat;
        scalar += run_columns(task, range, c0, columns);
    }
    return scalar;
}

template <class T>
static double run_planes(const Task<T> &task, const Range &range) {
    const Plan &plan = task.plan;
    double scalar = 0;
    for (int64_t first = range.first; first < range.last;) {
        const int64_t s = first / plan.c, channel = first % plan.c;
        const int64_t last = std::min(range.last, (s + 1) * plan.c);
        Block<T> block = block_at(task, first * plan.p + range.begin);
        block.rows = last - first, block.width = range.end - range.begin, block.pitch = plan.p;
        block.d = at(task.d, first);
        block.gdd = at(task.gdd, first);
        block.b = at(task.b, channel);
        block.gdb = at(task.gdb, channel);
        block.noise = noise_at(task, s, range.begin);
        const int64_t slot = (s * plan.chunks + range.chunk) * plan.c + channel;
        block.channels = at(task.channels, slot);
        block.samples = at(task.samples, slot);
        task.run(task.constants, block);
        scalar += block.scalar;
        first = last;
    }
    return scalar;
}

template <class T>
static void run_part(const Task<T> &task, int64_t part) {
    const Range range = range_of(task.plan, part);
    const double scalar = task.plan.last ? run_samples(task, range) : run_planes(task, range);
    if (task.scalars) task.scalars[part] = scalar;
}

template <class T>
static void run_parts(const Task<T> &task, int threads) {
    const Plan &plan = task.plan;
    if (threads < 2 || plan.n * plan.c * plan.p < FEWEST_SHARED) {
        for (int64_t part = 0; part < plan.parts; ++part) run_part(task, part);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < plan.parts; ++part) run_part(task, part);
}

/* out[g, i] = sum of slots[g, r, i] over r < rows, for i < width. */
template <class A>
static void add_slots(const A *slots, int64_t rows, int64_t groups, int64_t width, A *out) {
    double sums[TILE];
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t start = 0; start < width; start += TILE) {
            const int64_t n = std::min(TILE, width - start);
            std::fill_n(sums, n, 0.0);
            for (int64_t r = 0; r < rows; ++r) {
                const A *slot = slots + (g * rows + r) * width + start;
                for (int64_t i = 0; i < n; ++i) sums[i] += slot[i];
            }
            for (int64_t i = 0; i < n; ++i) out[g * width + start + i] = static_cast<A>(sums[i]);
        }
    }
}

}  // namespace kernels::epilogue

#endif

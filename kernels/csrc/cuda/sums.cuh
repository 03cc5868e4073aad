/* The three sums of a derivative of the epilogue, from one number a block to the gradients.
 *
 * A block leaves sums over its pixels: for each of its channels that of d (kind 0) and of b (1),
 * and one over all it has (2). As a matrix these are [parts, n c], [parts n, c] and [blocks, 1]; a
 * gradient is the sums of its columns. Of one row, the block writes the gradient itself.
 */
#ifndef KERNELS_CUDA_SUMS_CUH
#define KERNELS_CUDA_SUMS_CUH

#include "epilogue.cuh"

namespace kernels {

/* to[column] = sum of from[row, column] over rows; `blocks` of 2^log_width columns. */
template <class A>
struct ColumnSums {
    const A *from;
    A *to;
    int64_t rows, columns, blocks;
    int32_t log_width;
};

template <class A>
struct ThreeColumnSums {
    ColumnSums<A> kinds[3];
};

template <class A>
__global__ void __launch_bounds__(THREADS) column_sums_kernel(const ThreeColumnSums<A> all) {
    __shared__ A scratch[1][THREADS];
    int64_t block = blockIdx.x;
    int kind = 0;
    while (block >= all.kinds[kind].blocks) block -= all.kinds[kind++].blocks;
    const ColumnSums<A> &job = all.kinds[kind];
    const int lane = threadIdx.x & ((1 << job.log_width) - 1);
    const int slot = threadIdx.x >> job.log_width;
    const int slots = THREADS >> job.log_width;
    const int64_t column = (block << job.log_width) + lane;
    const bool inside = column < job.columns;
    A sum[1] = {0};
    if (inside) {
#pragma unroll 4
        for (int64_t row = slot; row < job.rows; row += slots) {
            sum[0] += __ldg(job.from + row * job.columns + column);
        }
    }
    sum_over_slots(sum, job.log_width, scratch);
    if (inside && slot == 0) job.to[column] = sum[0];
}

/* Where the sums of each kind lie. A kind that is not wanted has no output. */
struct SumPlan {
    void *outputs[3];
    int64_t rows[3], columns[3];
    int64_t offsets[3]; /* in the workspace, in bytes */
    int64_t bytes;

    bool is_wanted(int kind) const { return outputs[kind] && columns[kind] > 0; }
    bool is_direct(int kind) const { return rows[kind] == 1; }
};

/* An empty image has no rows: its gradients are 0. */
inline SumPlan plan_sums(const KernelsEpilogue &e, const Walk &walk, void *d, void *strength,
                         void *b) {
    SumPlan plan = {{d, b, strength}, {0, 0, 0}, {e.n * e.c, e.c, 1}, {0, 0, 0}, 0};
    if (is_empty(e)) return plan;
    const int64_t rows[3] = {walk.parts, walk.parts * e.n, walk.blocks};
    const int64_t size = e.dtype == KERNELS_FLOAT64 ? sizeof(double) : sizeof(float);
    for (int kind = 0; kind < 3; ++kind) {
        plan.rows[kind] = rows[kind];
        plan.offsets[kind] = plan.bytes;
        if (!plan.is_wanted(kind) || plan.is_direct(kind)) continue;
        plan.bytes += ceil_div(rows[kind] * plan.columns[kind] * size, 256) * 256;
    }
    return plan;
}

/* Where the kernel leaves the sums of each kind; null: nowhere. */
template <class A>
void set_sums(const SumPlan &plan, void *workspace, A *(&sums)[3]) {
    for (int kind = 0; kind < 3; ++kind) {
        void *part = static_cast<char *>(workspace) + plan.offsets[kind];
        void *where = plan.is_direct(kind) ? plan.outputs[kind] : part;
        sums[kind] = plan.is_wanted(kind) ? static_cast<A *>(where) : nullptr;
    }
}

template <class A>
int32_t finish_sums(const SumPlan &plan, const KernelsRun *run) {
    ThreeColumnSums<A> all = {};
    A *sums[3];
    set_sums(plan, run->workspace, sums);
    int64_t blocks = 0;
    for (int kind = 0; kind < 3; ++kind) {
        if (!plan.is_wanted(kind) || plan.is_direct(kind)) continue;
        ColumnSums<A> &job = all.kinds[kind];
        // As many threads to a column as it has rows, up to 32: eight columns are one sector.
        const int log_width = 8 - log_ceil(plan.rows[kind], 5);
        job.from = sums[kind];
        job.to = static_cast<A *>(plan.outputs[kind]);
        job.rows = plan.rows[kind];
        job.columns = plan.columns[kind];
        job.log_width = log_ceil(job.columns, log_width);
        job.blocks = ceil_div(job.columns, int64_t(1) << job.log_width);
        blocks += job.blocks;
    }
    return launch(column_sums_kernel<A>, blocks, run->stream, all);
}

}  // namespace kernels

#endif

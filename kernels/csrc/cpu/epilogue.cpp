/* The epilogue, its backward pass and the adjoint of that, on a CPU: each one pass over memory. */
#include "../valid.h"
#include "epilogue_parts.h"

namespace kernels::epilogue {
namespace {

/* Slots that are not the output itself, and their place in the workspace. */
struct Workspace {
    bool channel_slots, sample_slots;
    int64_t scalars, slots;  // numbers of doubles and of A in one array of slots

    Workspace(const Request &r, const Plan &plan) {
        slots = plan.n * plan.chunks * plan.c;
        channel_slots = r.channels && plan.n * plan.chunks != 1;
        sample_slots = r.samples && plan.chunks != 1;
        scalars = r.scalar ? plan.parts : 0;
    }

    int64_t bytes(int64_t size) const {
        return scalars * static_cast<int64_t>(sizeof(double)) +
               (channel_slots + sample_slots) * slots * size;
    }
};

template <class A>
Constants<A> make_constants(const Request &r, A limit) {
    const KernelsEpilogue &op = *r.op;
    const bool direct = !op.from_output;
    Constants<A> k = {};
    k.alpha = static_cast<A>(op.alpha);
    k.gain = static_cast<A>(op.gain);
    k.limit = limit;
    k.gain_outside = op.clamp < 0 ? k.gain : A(0);
    k.value_alpha = direct ? k.alpha : A(1);
    k.value_gain = direct ? k.gain : A(1);
    if (op.noise && op.strength && direct) k.strength = *static_cast<const A *>(op.strength);
    if (r.gdstrength) k.gdstrength = *static_cast<const A *>(r.gdstrength);
    return k;
}

/* The clamp as it can be compared with: an output read back has been rounded. */
template <class T>
Accumulation<T> limit_of(const KernelsEpilogue &op) {
    using A = Accumulation<T>;
    if (op.clamp < 0) return static_cast<A>(INFINITY);
    const A limit = static_cast<A>(op.clamp);
    return op.from_output ? to_accumulation(to_storage<T>(limit)) : limit;
}

template <class Pass, int ACT, class T>
BlockFunction<T> block_function(const Plan &plan) {
    if constexpr (is_piecewise_linear(ACT)) {
        if (!plan.full) {
            return plan.last ? run_block_last<Pass, ACT, false, T>
                             : run_block_first<Pass, ACT, false, T>;
        }
    }
    return plan.last ? run_block_last<Pass, ACT, true, T> : run_block_first<Pass, ACT, true, T>;
}

template <class Pass, class T>
BlockFunction<T> block_function(int act, const Plan &plan) {
    switch (act) {
        case KERNELS_LINEAR: return block_function<Pass, KERNELS_LINEAR, T>(plan);
        case KERNELS_RELU: return block_function<Pass, KERNELS_RELU, T>(plan);
        case KERNELS_LRELU: return block_function<Pass, KERNELS_LRELU, T>(plan);
        case KERNELS_TANH: return block_function<Pass, KERNELS_TANH, T>(plan);
        case KERNELS_SIGMOID: return block_function<Pass, KERNELS_SIGMOID, T>(plan);
        case KERNELS_ELU: return block_function<Pass, KERNELS_ELU, T>(plan);
        case KERNELS_SELU: return block_function<Pass, KERNELS_SELU, T>(plan);
        case KERNELS_SOFTPLUS: return block_function<Pass, KERNELS_SOFTPLUS, T>(plan);
        default: return block_function<Pass, KERNELS_SWISH, T>(plan);
    }
}

template <class T>
BlockFunction<T> block_function(const Request &r, const Plan &plan) {
    switch (r.pass) {
        case FORWARD: return block_function<Forward, T>(r.op->act, plan);
        case BACKWARD: return block_function<Backward, T>(r.op->act, plan);
        default: return block_function<DoubleBackward, T>(r.op->act, plan);
    }
}

template <class T>
Task<T> make_task(const Request &r, const Plan &plan) {
    using A = Accumulation<T>;
    const KernelsEpilogue &op = *r.op;
    Task<T> task = {};
    task.plan = plan;
    task.constants = make_constants<A>(r, limit_of<T>(op));
    task.run = block_function<T>(r, plan);
    task.streams = {static_cast<const T *>(r.x), static_cast<const T *>(r.dy),
                    static_cast<const T *>(r.gdx), static_cast<T *>(r.out),
                    static_cast<T *>(r.gx)};
    task.d = static_cast<const A *>(op.d);
    task.b = op.from_output ? nullptr : static_cast<const A *>(op.b);
    task.gdd = static_cast<const A *>(r.gdd);
    task.gdb = static_cast<const A *>(r.gdb);
    task.noise = static_cast<const A *>(op.noise);
    task.channels = static_cast<A *>(r.channels);
    task.samples = static_cast<A *>(r.samples);
    return task;
}

template <class T>
int32_t run_typed(const Request &r, const KernelsRun &run) {
    using A = Accumulation<T>;
    const Plan plan = make_plan(r);
    const Workspace workspace(r, plan);
    if (workspace.bytes(sizeof(A)) > 0 && !run.workspace) return KERNELS_NO_MEMORY;
    Task<T> task = make_task<T>(r, plan);
    task.scalars = r.scalar ? static_cast<double *>(run.workspace) : nullptr;
    A *slots = reinterpret_cast<A *>(static_cast<double *>(run.workspace) + workspace.scalars);
    if (workspace.channel_slots) task.channels = slots;
    if (workspace.sample_slots) task.samples = slots + workspace.channel_slots * workspace.slots;
    run_parts(task, run.threads);
    const int64_t c = plan.c, chunks = plan.chunks;
    if (workspace.channel_slots) {
        add_slots(task.channels, plan.n * chunks, 1, c, static_cast<A *>(r.channels));
    }
    if (workspace.sample_slots) {
        add_slots(task.samples, chunks, plan.n, c, static_cast<A *>(r.samples));
    }
    if (r.scalar) {
        double sum = 0;
        for (int64_t part = 0; part < plan.parts; ++part) sum += task.scalars[part];
        *static_cast<A *>(r.scalar) = static_cast<A>(sum);
    }
    return KERNELS_OK;
}

int32_t run(const Request &r, const KernelsRun *run) {
    switch (r.op->dtype) {
        case KERNELS_FLOAT64: return run_typed<double>(r, *run);
        case KERNELS_FLOAT32: return run_typed<float>(r, *run);
        case KERNELS_BFLOAT16: return run_typed<BFloat16>(r, *run);
        default: return run_typed<Float16>(r, *run);
    }
}

int64_t workspace_bytes(const Request &r) {
    return Workspace(r, make_plan(r)).bytes(r.op->dtype == KERNELS_FLOAT64 ? 8 : 4);
}

Request request_of(const KernelsEpilogue *op, const KernelsEpilogueBackward *g) {
    Request r = {};
    r.op = op;
    r.pass = BACKWARD;
    r.x = needs_x(*op, *g) ? g->x : nullptr;
    r.dy = g->dy;
    r.out = g->dx;
    r.samples = g->dd;
    r.scalar = g->dstrength;
    r.channels = g->db;
    return r;
}

Request request_of(const KernelsEpilogue *op, const KernelsEpilogueDoubleBackward *g) {
    Request r = {};
    r.op = op;
    r.pass = DOUBLE_BACKWARD;
    r.x = needs_x(*op, *g) ? g->x : nullptr;
    r.dy = g->dy;
    r.gdx = g->gdx, r.gdd = g->gdd, r.gdstrength = g->gdstrength, r.gdb = g->gdb;
    r.out = g->gdy, r.gx = g->gx;
    r.samples = g->gd, r.scalar = g->gstrength, r.channels = g->gb;
    return r;
}

}  // namespace
}  // namespace kernels::epilogue

using namespace kernels;
using namespace kernels::epilogue;

KERNELS_EXPORT int32_t kernels_epilogue(const KernelsEpilogue *op, const void *x, void *y,
                                        const KernelsRun *run_with) {
    if (!is_valid(*op, x, y)) return KERNELS_UNSUPPORTED;
    Request r = {};
    r.op = op;
    r.pass = FORWARD;
    r.x = x;
    r.out = y;
    return run(r, run_with);
}

KERNELS_EXPORT int64_t kernels_epilogue_backward_workspace(const KernelsEpilogue *op,
                                                           const KernelsEpilogueBackward *g) {
    if (!is_valid(*op, *g)) return KERNELS_UNSUPPORTED;
    return workspace_bytes(request_of(op, g));
}

KERNELS_EXPORT int32_t kernels_epilogue_backward(const KernelsEpilogue *op,
                                                 const KernelsEpilogueBackward *g,
                                                 const KernelsRun *run_with) {
    if (!is_valid(*op, *g)) return KERNELS_UNSUPPORTED;
    return run(request_of(op, g), run_with);
}

KERNELS_EXPORT int64_t kernels_epilogue_double_backward_workspace(
    const KernelsEpilogue *op, const KernelsEpilogueDoubleBackward *g) {
    if (!is_valid(*op, *g)) return KERNELS_UNSUPPORTED;
    return workspace_bytes(request_of(op, g));
}

KERNELS_EXPORT int32_t kernels_epilogue_double_backward(const KernelsEpilogue *op,
                                                        const KernelsEpilogueDoubleBackward *g,
                                                        const KernelsRun *run_with) {
    if (!is_valid(*op, *g)) return KERNELS_UNSUPPORTED;
    return run(request_of(op, g), run_with);
}

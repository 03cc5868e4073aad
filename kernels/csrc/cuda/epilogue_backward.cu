/* The derivatives of the epilogue, first and second: one pass over the image each, the sums over
 * pixels and samples with it. The equations stand in abi.h. */
#include "sums.cuh"

namespace kernels {
namespace {

/* gain * act'(u), 0 where the output is clamped. */
template <int ACT, class A>
__device__ inline A slope_at(const Operands<A> &o, A u) {
    return passes<ACT>(o, u) ? o.gain * act_slope<ACT>(u, o.alpha) : A(0);
}

/* gain * act''(u), 0 where the output is clamped. */
template <int ACT, class A>
__device__ inline A curvature_at(const Operands<A> &o, A u) {
    return passes<ACT>(o, u) ? o.gain * act_curvature<ACT>(u) : A(0);
}

template <int N, class T>
__device__ inline void load_or_zero(const T *x, int64_t offset, Accumulation<T> (&out)[N]) {
    if (x) {
        load(x + offset, out);
    } else {
        fill(out, Accumulation<T>(0));
    }
}

/* --------------------------------------------------------------------- first */

template <class F>
struct Backward {
    using Form = F;
    using A = typename F::A;
    static constexpr bool HAS_SUMS = true;
    static constexpr int UNROLL = F::PIECEWISE ? 2 : 1;

    struct Arguments {
        Operands<A> operands;
        const typename F::T *x, *dy;
        typename F::T *dx;
        A *sums[3];
    };

    Channel<F> channel;
    Sums<F> sums;

    __device__ void enter(const Arguments &given, int64_t plane, int32_t first_channel) {
        channel.enter(given.operands, plane, first_channel);
    }

    __device__ void at(const Arguments &given, int64_t offset, const A (&noise)[F::PIXELS]) {
        const Operands<A> &o = given.operands;
        A x[F::VALUES], t[F::VALUES];
        load_or_zero(given.x, offset, x);
        load(given.dy + offset, t);
        with_act<F::PIECEWISE>(o.act, [&](auto act) {
#pragma unroll
            for (int i = 0; i < F::VALUES; ++i) {
                t[i] *= slope_at<decltype(act)::value>(o, channel.at(o, x[i], noise, i));
            }
        });
#pragma unroll
        for (int i = 0; i < F::VALUES; ++i) {
            const int k = F::LAST ? i : 0;
            sums.channel[0][k] += t[i] * x[i];
            sums.channel[1][k] += t[i];
            sums.all += t[i] * noise[F::LAST ? 0 : i];
            t[i] *= channel.d[k];
        }
        if (given.dx) store(given.dx + offset, t);
    }
};

/* --------------------------------------------------------------------- second */

template <class F>
struct DoubleBackward {
    using Form = F;
    using A = typename F::A;
    using T = typename F::T;
    static constexpr bool HAS_SUMS = true;
    static constexpr int UNROLL = 1;

    struct Arguments {
        Operands<A> operands;
        const T *x, *dy, *gdx;
        const A *gdd, *gdstrength, *gdb;
        T *gdy, *gx;
        A *sums[3];
    };

    Channel<F> channel;
    Sums<F> sums;
    A gdd[F::CHANNELS], gdb[F::CHANNELS], gdstrength;

    __device__ void enter(const Arguments &given, int64_t plane, int32_t first_channel) {
        channel.enter(given.operands, plane, first_channel);
        gdstrength = given.gdstrength ? __ldg(given.gdstrength) : A(0);
        load_or_zero(given.gdd, plane, gdd);
        load_or_zero(given.gdb, first_channel, gdb);
    }

    /* One element: x and dy come in, gdx becomes gdy, x becomes gx. */
    template <int ACT>
    __device__ void element(const Arguments &given, int i, const A (&noise)[F::PIXELS], A dy, A &x,
                            A &gdx) {
        const Operands<A> &o = given.operands;
        const int k = F::LAST ? i : 0;
        const A e = noise[F::LAST ? 0 : i];
        const A u = channel.at(o, x, noise, i);
        const A m = slope_at<ACT>(o, u);
        const A t = dy * m;
        A a = gdx * channel.d[k] + (gdstrength * e + gdb[k]);
        A gx = 0;
        // Left out rather than multiplied by 0, which an infinite x would turn to NaN.
        if (given.gdd) {
            a += gdd[k] * x;
            gx = gdd[k] * t;
        }
        sums.channel[0][k] += gdx * t;
        if constexpr (!is_piecewise_linear(ACT)) {
            const A h = dy * curvature_at<ACT>(o, u) * a;
            gx += h * channel.d[k];
            sums.channel[0][k] += h * x;
            sums.channel[1][k] += h;
            sums.all += h * e;
        }
        x = gx;
        gdx = m * a;
    }

    __device__ void at(const Arguments &given, int64_t offset, const A (&noise)[F::PIXELS]) {
        A x[F::VALUES], dy[F::VALUES], gdx[F::VALUES];
        load_or_zero(given.x, offset, x);
        load(given.dy + offset, dy);
        load_or_zero(given.gdx, offset, gdx);
        with_act<F::PIECEWISE>(given.operands.act, [&](auto act) {
#pragma unroll
            for (int i = 0; i < F::VALUES; ++i) {
                element<decltype(act)::value>(given, i, noise, dy[i], x[i], gdx[i]);
            }
        });
        if (given.gdy) store(given.gdy + offset, gdx);
        if (given.gx) store(given.gx + offset, x);
    }
};

/* --------------------------------------------------------------------- on the host */

/* How one call runs: the simplified sizes, the walk, and the way of the sums. */
struct Plan {
    KernelsEpilogue e;
    int values;
    Walk walk;
    SumPlan sums;
};

template <int COUNT>
Plan plan_for(const KernelsEpilogue &asked, bool per_sample,
              const void *const (&addresses)[COUNT], void *d, void *strength, void *b) {
    Plan plan = {};
    plan.e = simplified(asked, per_sample || asked.d || asked.noise);
    plan.values = values_at_once(plan.e, addresses);
    if (!is_empty(plan.e)) plan.walk = walk_for(plan.e, plan.values);
    plan.sums = plan_sums(plan.e, plan.walk, d, strength, b);
    return plan;
}

Plan plan_backward(const KernelsEpilogue &e, const KernelsEpilogueBackward &g) {
    const void *const addresses[] = {g.x, g.dy, g.dx, g.dd, g.db};
    return plan_for(e, g.dd, addresses, g.dd, g.dstrength, g.db);
}

Plan plan_double_backward(const KernelsEpilogue &e, const KernelsEpilogueDoubleBackward &g) {
    const void *const addresses[] = {g.x, g.dy, g.gdx, g.gdd, g.gdb, g.gdy, g.gx, g.gd, g.gb};
    return plan_for(e, g.gdd || g.gd, addresses, g.gd, g.gstrength, g.gb);
}

/* Starts the pass with the arguments that `given_for(Form)` makes of operands, then the sums. */
template <template <class> class Pass, class GivenFor>
int32_t run_plan(const Plan &plan, const KernelsRun *run, GivenFor &&given_for) {
    if (plan.sums.bytes > 0 && !run->workspace) return KERNELS_NO_MEMORY;
    return with_form(plan.e, plan.values, [&](auto form) {
        using F = decltype(form);
        if (!is_empty(plan.e)) {
            typename Pass<F>::Arguments given = given_for(form);
            given.operands = operands<F>(plan.e);
            set_sums(plan.sums, run->workspace, given.sums);
            const int32_t error = launch(epilogue_kernel<Pass<F>>, plan.walk.blocks, run->stream,
                                         given, plan.walk);
            if (error) return error;
        }
        return finish_sums<typename F::A>(plan.sums, run);
    });
}

}  // namespace
}  // namespace kernels

using namespace kernels;

KERNELS_EXPORT int64_t kernels_epilogue_backward_workspace(const KernelsEpilogue *e,
                                                           const KernelsEpilogueBackward *g) {
    if (!is_valid(*e, *g) || !fits_grid(*e)) return KERNELS_UNSUPPORTED;
    return plan_backward(*e, *g).sums.bytes;
}

KERNELS_EXPORT int32_t kernels_epilogue_backward(const KernelsEpilogue *e,
                                                 const KernelsEpilogueBackward *g,
                                                 const KernelsRun *run) {
    if (!is_valid(*e, *g) || !fits_grid(*e)) return KERNELS_UNSUPPORTED;
    return run_plan<Backward>(plan_backward(*e, *g), run, [&](auto form) {
        using F = decltype(form);
        using T = typename F::T;
        typename Backward<F>::Arguments given = {};
        given.x = static_cast<const T *>(g->x);
        given.dy = static_cast<const T *>(g->dy);
        given.dx = static_cast<T *>(g->dx);
        return given;
    });
}

KERNELS_EXPORT int64_t kernels_epilogue_double_backward_workspace(
    const KernelsEpilogue *e, const KernelsEpilogueDoubleBackward *g) {
    if (!is_valid(*e, *g) || !fits_grid(*e)) return KERNELS_UNSUPPORTED;
    return plan_double_backward(*e, *g).sums.bytes;
}

KERNELS_EXPORT int32_t kernels_epilogue_double_backward(const KernelsEpilogue *e,
                                                        const KernelsEpilogueDoubleBackward *g,
                                                        const KernelsRun *run) {
    if (!is_valid(*e, *g) || !fits_grid(*e)) return KERNELS_UNSUPPORTED;
    return run_plan<DoubleBackward>(plan_double_backward(*e, *g), run, [&](auto form) {
        using F = decltype(form);
        using A = typename F::A;
        using T = typename F::T;
        typename DoubleBackward<F>::Arguments given = {};
        given.x = static_cast<const T *>(g->x);
        given.dy = static_cast<const T *>(g->dy);
        given.gdx = static_cast<const T *>(g->gdx);
        given.gdd = static_cast<const A *>(g->gdd);
        given.gdstrength = static_cast<const A *>(g->gdstrength);
        given.gdb = static_cast<const A *>(g->gdb);
        given.gdy = static_cast<T *>(g->gdy);
        given.gx = static_cast<T *>(g->gx);
        return given;
    });
}

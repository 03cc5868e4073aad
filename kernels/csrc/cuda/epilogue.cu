/* y = clamp(gain * act(x * d + noise * strength + b)). */
#include "epilogue.cuh"

namespace kernels {
namespace {

template <class F>
struct Forward {
    using Form = F;
    using A = typename F::A;
    static constexpr bool HAS_SUMS = false;
    static constexpr int UNROLL = F::PIECEWISE ? 4 : 1;

    struct Arguments {
        Operands<A> operands;
        const typename F::T *x;
        typename F::T *y;
    };

    Channel<F> channel;

    __device__ void enter(const Arguments &given, int64_t plane, int32_t first_channel) {
        channel.enter(given.operands, plane, first_channel);
    }

    __device__ void at(const Arguments &given, int64_t offset, const A (&noise)[F::PIXELS]) {
        const Operands<A> &o = given.operands;
        A x[F::VALUES], y[F::VALUES];
        load(given.x + offset, x);
        with_act<F::PIECEWISE>(o.act, [&](auto act) {
#pragma unroll
            for (int i = 0; i < F::VALUES; ++i) {
                y[i] = output_at<decltype(act)::value>(o, channel.at(o, x[i], noise, i));
            }
        });
        store(given.y + offset, y);
    }
};

}  // namespace
}  // namespace kernels

using namespace kernels;

KERNELS_EXPORT int32_t kernels_epilogue(const KernelsEpilogue *asked, const void *x, void *y,
                                        const KernelsRun *run) {
    if (!is_valid(*asked, x, y) || !fits_grid(*asked)) return KERNELS_UNSUPPORTED;
    if (is_empty(*asked)) return KERNELS_OK;
    const KernelsEpilogue e = simplified(*asked, asked->d || asked->noise);
    const void *const addresses[] = {x, y};
    const int values = values_at_once(e, addresses);
    const Walk walk = walk_for(e, values);
    return with_form(e, values, [&](auto form) {
        using F = decltype(form);
        using T = typename F::T;
        typename Forward<F>::Arguments given = {operands<F>(e), static_cast<const T *>(x),
                                                static_cast<T *>(y)};
        return launch(epilogue_kernel<Forward<F>>, walk.blocks, run->stream, given, walk);
    });
}

/* Batch norm, an addition and a ReLU in one pass over memory, the statistics and the gradient.
 *
 * Work is cut into parts of pixels that are the same for every number of threads. A part is read in
 * blocks that stay in the first cache. Within a block, sums are of the accumulation type; over
 * blocks and parts they are added in order in double.
 *
 * Mean and variance take one pass over memory: of each block the mean, then the squares of what
 * differs from it, joined as Chan, Golub and LeVeque do ("Updating Formulae and a Pairwise
 * Algorithm for Computing Sample Variances", 1979). So the variance of numbers far from 0 is as
 * exact as that of two passes.
 */
#include "../abi.h"
#include "../valid.h"
#include "vectors.h"

#include <cmath>

namespace kernels {
namespace {

constexpr int64_t GROUP = 16;            // channels of a step
constexpr int64_t BLOCK = 4096;          // elements of a block, about
constexpr int64_t PART = 65536;          // elements of a part, about
constexpr int64_t FEWEST_SHARED = 32768; // fewer elements do not pay for starting threads
constexpr int64_t CHAINS = 2;            // pixels whose sums are kept apart, as sums wait on sums

template <class A>
constexpr int VECTORS = GROUP / LANES<A>;

/* One number for each channel of a group. */
template <class A>
struct Group {
    Vector<A> v[VECTORS<A>];
};

template <class T>
KERNELS_INLINE Group<Accumulation<T>> load_group(const T *x) {
    using A = Accumulation<T>;
    Group<A> group;
    KERNELS_UNROLL
    for (int i = 0; i < VECTORS<A>; ++i) group.v[i] = load<LANES<A>>(x + i * LANES<A>);
    return group;
}

template <class T>
KERNELS_INLINE void store_group(const Group<Accumulation<T>> &group, T *y) {
    using A = Accumulation<T>;
    KERNELS_UNROLL
    for (int i = 0; i < VECTORS<A>; ++i) store<LANES<A>>(y + i * LANES<A>, group.v[i]);
}

/* How the pixels are cut. */
struct Cut {
    int64_t m, c, parts, block;

    explicit Cut(const KernelsBatchNorm &p) : m(p.m), c(p.c) {
        parts = larger(1, smaller(m, m * c / PART));
        block = larger(1, BLOCK / c);
    }
    int64_t begin(int64_t part) const { return m / parts * part + smaller(part, m % parts); }
};

/* run(part, its first pixel, the one after its last) for each part. */
template <class Run>
void each_part(const Cut &cut, int threads, Run run) {
    const bool shared = threads > 1 && cut.m * cut.c >= FEWEST_SHARED;
#pragma omp parallel for schedule(static) num_threads(threads) if (shared)
    for (int64_t part = 0; part < cut.parts; ++part)
        run(part, cut.begin(part), cut.begin(part + 1));
}

/* add(offset, sums) of each pixel of a block for the channels from c0 on; returns the sums. */
template <class A, int SUMS, class Add>
KERNELS_INLINE void sum_pixels(int64_t begin, int64_t end, int64_t c, int64_t c0,
                               Group<A> (&sums)[SUMS], Add add) {
    Group<A> chains[CHAINS][SUMS] = {};
    int64_t pixel = begin;
    for (; pixel + CHAINS <= end; pixel += CHAINS) {
        KERNELS_UNROLL
        for (int64_t i = 0; i < CHAINS; ++i) add((pixel + i) * c + c0, chains[i]);
    }
    if (pixel < end) add(pixel * c + c0, chains[0]);
    for (int s = 0; s < SUMS; ++s) {
        for (int i = 0; i < VECTORS<A>; ++i) {
            sums[s].v[i] = chains[0][s].v[i] + chains[1][s].v[i];
        }
    }
}

template <class A>
KERNELS_INLINE A lane(const Group<A> &group, int64_t i) {
    return group.v[i / LANES<A>][i % LANES<A>];
}

// ---------------------------------------------------------------- mean and variance

/* Mean and sum of squared differences from it, of `count` pixels of every channel. */
struct Moments {
    double *mean, *spread;
    int64_t count;
};

/* How to join `more` pixels to those before: the share of the new, and the weight of the squared
 * difference of the two means. */
struct Join {
    double share, weight;

    Join(int64_t before, int64_t more)
        : share(double(more) / double(before + more)), weight(double(before) * share) {}

    void operator()(double &mean, double &spread, double more_mean, double more_spread) const {
        const double apart = more_mean - mean;
        mean += apart * share;
        spread += more_spread + apart * apart * weight;
    }
};

template <class T>
void add_block(const T *x, int64_t begin, int64_t end, int64_t c, Moments &to) {
    using A = Accumulation<T>;
    const Join join(to.count, end - begin);
    const A one = A(1) / A(end - begin);
    for (int64_t c0 = 0; c0 < c; c0 += GROUP) {
        Group<A> sums[1], squares[1];
        sum_pixels<A, 1>(begin, end, c, c0, sums, [&](int64_t at, Group<A>(&own)[1]) {
            const Group<A> value = load_group(x + at);
            KERNELS_UNROLL
            for (int i = 0; i < VECTORS<A>; ++i) own[0].v[i] += value.v[i];
        });
        Group<A> mean;
        for (int i = 0; i < VECTORS<A>; ++i) mean.v[i] = sums[0].v[i] * splat<Vector<A>>(one);
        sum_pixels<A, 1>(begin, end, c, c0, squares, [&](int64_t at, Group<A>(&own)[1]) {
            const Group<A> value = load_group(x + at);
            KERNELS_UNROLL
            for (int i = 0; i < VECTORS<A>; ++i) {
                const Vector<A> apart = value.v[i] - mean.v[i];
                own[0].v[i] += apart * apart;
            }
        });
        for (int64_t i = 0; i < GROUP; ++i) {
            join(to.mean[c0 + i], to.spread[c0 + i], lane(mean, i), lane(squares[0], i));
        }
    }
    to.count += end - begin;
}

template <class T>
void moments(const KernelsBatchNorm &p, const KernelsRun &run, const T *x, void *mean,
             void *variance) {
    using A = Accumulation<T>;
    const Cut cut(p);
    double *const all = static_cast<double *>(run.workspace);
    each_part(cut, run.threads, [&](int64_t part, int64_t begin, int64_t end) {
        double *own = all + part * 2 * p.c;
        Moments found = {own, own + p.c, 0};
        for (int64_t i = 0; i < 2 * p.c; ++i) own[i] = 0;
        for (int64_t pixel = begin; pixel < end; pixel += cut.block) {
            add_block(x, pixel, smaller(end, pixel + cut.block), p.c, found);
        }
    });
    for (int64_t part = 1; part < cut.parts; ++part) {
        const Join join(cut.begin(part), cut.begin(part + 1) - cut.begin(part));
        const double *own = all + part * 2 * p.c;
        for (int64_t i = 0; i < p.c; ++i) join(all[i], all[p.c + i], own[i], own[p.c + i]);
    }
    for (int64_t i = 0; i < p.c; ++i) {
        static_cast<A *>(mean)[i] = static_cast<A>(all[i]);
        static_cast<A *>(variance)[i] = static_cast<A>(all[p.c + i] / double(p.m));
    }
}

// ---------------------------------------------------------------- normalised values

/* 1 / sqrt(variance + eps) of each channel, and what it makes of the weight: rows of the scratch
 * memory, of ROWS. */
template <class A>
struct Operands {
    static constexpr int64_t ROWS = 4;
    const A *mean, *bias;
    A *rate, *scale, *slope, *offset;  // slope and offset: of dx

    Operands(const KernelsBatchNorm &p, void *memory)
        : mean(static_cast<const A *>(p.mean)), bias(static_cast<const A *>(p.bias)),
          rate(static_cast<A *>(memory)), scale(rate + p.c), slope(scale + p.c),
          offset(slope + p.c) {
        const A *variance = static_cast<const A *>(p.variance);
        const A *weight = static_cast<const A *>(p.weight);
        for (int64_t i = 0; i < p.c; ++i) {
            const double found = 1 / std::sqrt(double(variance[i]) + p.eps);
            rate[i] = static_cast<A>(found);
            scale[i] = static_cast<A>(found * double(weight[i]));
        }
    }
};

/* (x - mean) * scale + bias, the same in both passes, so that the sign is. */
template <class V>
KERNELS_INLINE V normalised(V x, V mean, V scale, V bias) {
    return (x - mean) * scale + bias;
}

template <class V>
KERNELS_INLINE V rectified(V u) {
    return u <= V{} ? V{} : u;
}

template <bool ADDS, class T>
void normalise(const KernelsBatchNorm &p, const KernelsRun &run, const T *x, const T *residual,
               T *y) {
    using A = Accumulation<T>;
    const Operands<A> with(p, run.workspace);
    each_part(Cut(p), run.threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            for (int64_t c0 = 0; c0 < p.c; c0 += GROUP) {
                const int64_t at = pixel * p.c + c0;
                const Group<A> mean = load_group(with.mean + c0), bias = load_group(with.bias + c0),
                               scale = load_group(with.scale + c0);
                Group<A> value = load_group(x + at), more = {};
                if constexpr (ADDS) more = load_group(residual + at);
                KERNELS_UNROLL
                for (int i = 0; i < VECTORS<A>; ++i) {
                    auto u = normalised(value.v[i], mean.v[i], scale.v[i], bias.v[i]);
                    if constexpr (ADDS) u += more.v[i];
                    value.v[i] = rectified(u);
                }
                store_group(value, y + at);
            }
        }
    });
}

// ---------------------------------------------------------------- the gradient

/* dy where the output is above 0, for the channels from c0 on. */
template <bool READ, class T>
struct Passed {
    using A = Accumulation<T>;
    const T *x, *y, *dy;
    const Operands<A> &with;

    /* `apart` gets x - mean. */
    KERNELS_INLINE Group<A> of(const Passed &p, int64_t at, int64_t c0, Group<A> &apart) {
        const Group<A> x = load_group(p.x + at), mean = load_group(p.with.mean + c0);
        Group<A> g = load_group(p.dy + at), value = {};
        if constexpr (READ) value = load_group(p.y + at);
        KERNELS_UNROLL
        for (int i = 0; i < VECTORS<A>; ++i) {
            apart.v[i] = x.v[i] - mean.v[i];
            if constexpr (!READ) {
                const Group<A> scale = load_group(p.with.scale + c0),
                               bias = load_group(p.with.bias + c0);
                value.v[i] = normalised(x.v[i], mean.v[i], scale.v[i], bias.v[i]);
            }
            g.v[i] = value.v[i] <= Vector<A>{} ? Vector<A>{} : g.v[i];
        }
        return g;
    }
};

/* Sums of g and of g (x - mean) over a part -> double [2,c]; writes g as dresidual. */
template <bool READ, class T>
void sum_part(const Passed<READ, T> &from, const Cut &cut, int64_t begin, int64_t end, T *dresidual,
              double *to) {
    using A = Accumulation<T>;
    for (int64_t i = 0; i < 2 * cut.c; ++i) to[i] = 0;
    for (int64_t pixel = begin; pixel < end; pixel += cut.block) {
        const int64_t last = smaller(end, pixel + cut.block);
        for (int64_t c0 = 0; c0 < cut.c; c0 += GROUP) {
            Group<A> sums[2];
            sum_pixels<A, 2>(pixel, last, cut.c, c0, sums, [&](int64_t at, Group<A>(&own)[2]) {
                Group<A> apart;
                const Group<A> g = Passed<READ, T>::of(from, at, c0, apart);
                KERNELS_UNROLL
                for (int i = 0; i < VECTORS<A>; ++i) {
                    own[0].v[i] += g.v[i];
                    own[1].v[i] += g.v[i] * apart.v[i];
                }
                if constexpr (READ) {
                    if (dresidual) store_group(g, dresidual + at);
                }
            });
            for (int64_t i = 0; i < GROUP; ++i) {
                to[c0 + i] += lane(sums[0], i);
                to[cut.c + c0 + i] += lane(sums[1], i);
            }
        }
    }
}

template <bool READ, class T>
void differentiate(const KernelsBatchNorm &p, const KernelsRun &run,
                   const KernelsBatchNormBackward &g) {
    using A = Accumulation<T>;
    const Cut cut(p);
    double *const all = static_cast<double *>(run.workspace);
    const Operands<A> with(p, all + cut.parts * 2 * p.c);
    const Passed<READ, T> from = {static_cast<const T *>(g.x), static_cast<const T *>(g.y),
                                  static_cast<const T *>(g.dy), with};
    each_part(cut, run.threads, [&](int64_t part, int64_t begin, int64_t end) {
        sum_part(from, cut, begin, end, static_cast<T *>(g.dresidual), all + part * 2 * p.c);
    });
    for (int64_t part = 1; part < cut.parts; ++part) {
        for (int64_t i = 0; i < 2 * p.c; ++i) all[i] += all[part * 2 * p.c + i];
    }
    for (int64_t i = 0; i < p.c; ++i) {
        const double rate = with.rate[i], scale = with.scale[i];
        const double dweight = all[p.c + i] * rate;
        static_cast<A *>(g.dbias)[i] = static_cast<A>(all[i]);
        static_cast<A *>(g.dweight)[i] = static_cast<A>(dweight);
        with.slope[i] = static_cast<A>(p.fixed ? 0 : -scale * rate * dweight / double(p.m));
        with.offset[i] = static_cast<A>(p.fixed ? 0 : -scale * all[i] / double(p.m));
    }
    each_part(cut, run.threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            for (int64_t c0 = 0; c0 < p.c; c0 += GROUP) {
                const int64_t at = pixel * p.c + c0;
                Group<A> apart, dx;
                const Group<A> passed = Passed<READ, T>::of(from, at, c0, apart);
                const Group<A> scale = load_group(with.scale + c0),
                               slope = load_group(with.slope + c0),
                               offset = load_group(with.offset + c0);
                KERNELS_UNROLL
                for (int i = 0; i < VECTORS<A>; ++i) {
                    dx.v[i] = scale.v[i] * passed.v[i] +
                              (slope.v[i] * apart.v[i] + offset.v[i]);
                }
                store_group(dx, static_cast<T *>(g.dx) + at);
            }
        }
    });
}

// ---------------------------------------------------------------- types

/* run(a value of the type of images). */
template <class Run>
int32_t by_type(const KernelsBatchNorm &p, Run run) {
    switch (p.dtype) {
        case KERNELS_FLOAT64: return run(double{});
        case KERNELS_FLOAT32: return run(float{});
        default: return run(BFloat16{});
    }
}

int64_t bytes_of_sums(const KernelsBatchNorm &p) {
    return Cut(p).parts * 2 * p.c * int64_t(sizeof(double));
}

int64_t bytes_of_operands(const KernelsBatchNorm &p) {
    return Operands<double>::ROWS * p.c * int64_t(sizeof(double));
}

}  // namespace
}  // namespace kernels

using namespace kernels;

KERNELS_EXPORT int64_t kernels_batch_moments_workspace(const KernelsBatchNorm *p) {
    return is_valid(*p) ? bytes_of_sums(*p) : int64_t(KERNELS_UNSUPPORTED);
}

KERNELS_EXPORT int32_t kernels_batch_moments(const KernelsBatchNorm *p, const void *x, void *mean,
                                             void *variance, const KernelsRun *run) {
    if (!is_valid(*p) || !x || !mean || !variance) return KERNELS_UNSUPPORTED;
    if (!run->workspace) return KERNELS_NO_MEMORY;
    return by_type(*p, [&](auto type) {
        moments(*p, *run, static_cast<const decltype(type) *>(x), mean, variance);
        return KERNELS_OK;
    });
}

KERNELS_EXPORT int64_t kernels_batch_norm_workspace(const KernelsBatchNorm *p) {
    return has_operands(*p) ? bytes_of_operands(*p) : int64_t(KERNELS_UNSUPPORTED);
}

KERNELS_EXPORT int32_t kernels_batch_norm(const KernelsBatchNorm *p, const void *x,
                                          const void *residual, void *y, const KernelsRun *run) {
    if (!has_operands(*p) || !x || !y) return KERNELS_UNSUPPORTED;
    if (!run->workspace) return KERNELS_NO_MEMORY;
    return by_type(*p, [&](auto type) {
        using T = decltype(type);
        const T *from = static_cast<const T *>(x), *more = static_cast<const T *>(residual);
        if (more) normalise<true>(*p, *run, from, more, static_cast<T *>(y));
        else normalise<false>(*p, *run, from, more, static_cast<T *>(y));
        return KERNELS_OK;
    });
}

KERNELS_EXPORT int64_t kernels_batch_norm_backward_workspace(const KernelsBatchNorm *p) {
    if (!has_operands(*p)) return KERNELS_UNSUPPORTED;
    return bytes_of_sums(*p) + bytes_of_operands(*p);
}

KERNELS_EXPORT int32_t kernels_batch_norm_backward(const KernelsBatchNorm *p,
                                                   const KernelsBatchNormBackward *g,
                                                   const KernelsRun *run) {
    if (!is_valid(*p, *g)) return KERNELS_UNSUPPORTED;
    if (!run->workspace) return KERNELS_NO_MEMORY;
    return by_type(*p, [&](auto type) {
        using T = decltype(type);
        if (g->y) differentiate<true, T>(*p, *run, *g);
        else differentiate<false, T>(*p, *run, *g);
        return KERNELS_OK;
    });
}

/* The 3x3 convolution with padding 1 in float32, channels last, by Winograd's minimal filtering:
 * F(2x2, 3x3) of Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks").
 *
 * A tile of 2x2 outputs sees a patch d of 4x4 inputs, and y = A^T [(G g G^T) * (B^T d B)] A: 16
 * products in place of 36. Over channels each of the 16 places is a matrix product, so a block of
 * tiles is transformed, multiplied 16 times and transformed back while it lies in the cache. The
 * gradient of the filter g is the adjoint, G^T [sum of (A dy A^T) * (B^T d B)] G. Sums over
 * channels are shorter than those of the direct way, and errors half as large.
 *
 * No bit of y depends on other images of the batch, nor on threads.
 */
#include "../abi.h"
#include "../valid.h"
#include "lanes.h"

#include <omp.h>

#if defined(__clang__)
#define KERNELS_UNROLL _Pragma("unroll")
#else
#define KERNELS_UNROLL _Pragma("GCC unroll 32")
#endif

namespace kernels {
namespace {

constexpr int L = LANES<float>;
using V = Vector<float>;

constexpr int PLACES = 16;  // of a transformed tile
constexpr int TAPS = 9;
/* Registers for sums, of 32 or of 16. */
constexpr int SUMS = VECTOR_BYTES == 64 ? 24 : 12;
constexpr int WIDEST = VECTOR_BYTES == 64 ? 4 : 2;
/* A product gives ROWS rows of as many columns as VECTORS have lanes. */
template <int VECTORS>
constexpr int ROWS = SUMS / VECTORS;
/* Between the matrices of two places, so that they do not all meet in one set of the cache; rows
 * of a product may read on into it. */
constexpr int64_t PAD = 32;
constexpr int64_t PARTS = 8;  // of the sum over tiles, each with a sum of its own

int64_t round_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

KERNELS_INLINE V load(const float *x) {
    V v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

KERNELS_INLINE void store(float *x, V v) { std::memcpy(x, &v, sizeof v); }

// ---------------------------------------------------------------- products

/* Where element (row, k) of a matrix lies. */
struct Strided {
    const float *first;
    int64_t row, step;
};

/* sum[r,v] = (or +=) sum over k of a[r,k] * b[k,v]: b and sums are rows of VECTORS vectors. */
template <int VECTORS, bool ADD>
void multiply(Strided a, const float *b, int64_t b_row, int64_t size, float *sum, int64_t sum_row) {
    constexpr int R = ROWS<VECTORS>;
    V sums[R][VECTORS];
    KERNELS_UNROLL
    for (int r = 0; r < R; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = ADD ? load(sum + r * sum_row + v * L) : V{};
    }
    for (int64_t k = 0; k < size; ++k) {
        V factors[VECTORS];
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) factors[v] = load(b + v * L);
        KERNELS_UNROLL
        for (int r = 0; r < R; ++r) {
            const V factor = splat<V>(a.first[r * a.row]);
            KERNELS_UNROLL
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += factor * factors[v];
        }
        a.first += a.step;
        b += b_row;
    }
    KERNELS_UNROLL
    for (int r = 0; r < R; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) store(sum + r * sum_row + v * L, sums[r][v]);
    }
}

// ---------------------------------------------------------------- tiles

/* For each tile of [begin, end): body(its number from begin on, image, y, x of its outputs). */
template <class Body>
KERNELS_INLINE void for_tiles(const KernelsConv3x3 &p, int64_t begin, int64_t end, Body body) {
    const int64_t across = p.w / 2, down = p.h / 2;
    int64_t x = begin % across, y = begin / across % down, image = begin / across / down;
    for (int64_t tile = begin; tile < end; ++tile) {
        body(tile - begin, image, 2 * y, 2 * x);
        if (++x < across) continue;
        x = 0;
        if (++y < down) continue;
        y = 0, ++image;
    }
}

/* B^T d. */
KERNELS_INLINE void patch_side(const V (&d)[4], V (&to)[4]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
}

/* B^T d B of the patch at (y, x), which lies INSIDE the image or has zeros around it. */
template <bool INSIDE>
KERNELS_INLINE void transform_patch(const KernelsConv3x3 &p, const float *image, int64_t y,
                                    int64_t x, float *to, int64_t place) {
    for (int64_t c = 0; c < p.c; c += L) {
        V half[4][4];
        KERNELS_UNROLL
        for (int j = 0; j < 4; ++j) {
            V column[4], side[4];
            KERNELS_UNROLL
            for (int i = 0; i < 4; ++i) {
                const bool there =
                    INSIDE || (y + i >= 0 && y + i < p.h && x + j >= 0 && x + j < p.w);
                column[i] = there ? load(image + ((y + i) * p.w + x + j) * p.c + c) : V{};
            }
            patch_side(column, side);
            KERNELS_UNROLL
            for (int i = 0; i < 4; ++i) half[i][j] = side[i];
        }
        KERNELS_UNROLL
        for (int i = 0; i < 4; ++i) {
            V side[4];
            patch_side(half[i], side);
            KERNELS_UNROLL
            for (int j = 0; j < 4; ++j) store(to + (4 * i + j) * place + c, side[j]);
        }
    }
}

/* The patches of tiles: x -> [place,tile,c]. */
void transform_patches(const KernelsConv3x3 &p, const float *x, int64_t begin, int64_t end,
                       float *to, int64_t place) {
    for_tiles(p, begin, end, [&](int64_t tile, int64_t n, int64_t row, int64_t column) {
        const float *image = x + n * p.h * p.w * p.c;
        const bool inside = row > 0 && row + 2 < p.h && column > 0 && column + 2 < p.w;
        float *at = to + tile * p.c;
        if (inside) transform_patch<true>(p, image, row - 1, column - 1, at, place);
        else transform_patch<false>(p, image, row - 1, column - 1, at, place);
    });
}

/* A^T m A: [place,tile,o] -> the outputs of tiles in y. */
void transform_back(const KernelsConv3x3 &p, const float *products, int64_t place, int64_t begin,
                    int64_t end, float *y) {
    for_tiles(p, begin, end, [&](int64_t tile, int64_t n, int64_t row, int64_t column) {
        float *to = y + ((n * p.h + row) * p.w + column) * p.o;
        for (int64_t o = 0; o < p.o; o += L) {
            const float *from = products + tile * p.o + o;
            V half[2][4];
            KERNELS_UNROLL
            for (int j = 0; j < 4; ++j) {
                V m[4];
                KERNELS_UNROLL
                for (int i = 0; i < 4; ++i) m[i] = load(from + (4 * i + j) * place);
                half[0][j] = m[0] + m[1] + m[2];
                half[1][j] = m[1] - m[2] - m[3];
            }
            KERNELS_UNROLL
            for (int i = 0; i < 2; ++i) {
                const V(&m)[4] = half[i];
                store(to + i * p.w * p.o + o, m[0] + m[1] + m[2]);
                store(to + i * p.w * p.o + p.o + o, m[1] - m[2] - m[3]);
            }
        }
    });
}

/* A d A^T of 2x2 gradients: dy -> [place,tile,o]. */
void transform_gradients(const KernelsConv3x3 &p, const float *dy, int64_t begin, int64_t end,
                         float *to, int64_t place) {
    for_tiles(p, begin, end, [&](int64_t tile, int64_t n, int64_t row, int64_t column) {
        const float *from = dy + ((n * p.h + row) * p.w + column) * p.o;
        for (int64_t o = 0; o < p.o; o += L) {
            V half[4][2];
            KERNELS_UNROLL
            for (int j = 0; j < 2; ++j) {
                const V upper = load(from + j * p.o + o), lower = load(from + (p.w + j) * p.o + o);
                half[0][j] = upper;
                half[1][j] = upper + lower;
                half[2][j] = upper - lower;
                half[3][j] = -lower;
            }
            KERNELS_UNROLL
            for (int i = 0; i < 4; ++i) {
                const V left = half[i][0], right = half[i][1];
                float *at = to + 4 * i * place + tile * p.o + o;
                store(at, left);
                store(at + place, left + right);
                store(at + 2 * place, left - right);
                store(at + 3 * place, -right);
            }
        }
    });
}

// ---------------------------------------------------------------- filters

/* Where w[o,c,tap] lies in the filter. */
struct Taps {
    int64_t o, c, tap, first;

    explicit Taps(const KernelsConv3x3 &p) {
        const bool last = p.filter_layout == KERNELS_CHANNELS_LAST;
        const int64_t inner = p.turned ? p.o : p.c;  // of [outer,inner,3,3]
        const int64_t to_outer = inner * TAPS, to_inner = last ? 1 : TAPS;
        o = p.turned ? to_inner : to_outer;
        c = p.turned ? to_outer : to_inner;
        tap = last ? inner : 1;
        first = 0;
        if (p.turned) first = (TAPS - 1) * tap, tap = -tap;
    }
};

/* G g of three values: 4. */
KERNELS_INLINE void filter_side(V a, V b, V c, V (&to)[4]) {
    const V outer = 0.5f * (a + c), middle = 0.5f * b;
    to[0] = a;
    to[1] = outer + middle;
    to[2] = outer - middle;
    to[3] = c;
}

/* G g G^T: the filter -> [place,panel,c,column], o being column + panel * WIDTH. */
template <int VECTORS>
void transform_filter(const KernelsConv3x3 &p, int threads, const float *filter, float *to) {
    constexpr int WIDTH = VECTORS * L;
    const int64_t panels = p.o / WIDTH;
    const Taps at(p);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t c = 0; c < p.c; ++c) {
            for (int64_t v = 0; v < WIDTH; v += L) {
                const float *from = filter + at.first + (panel * WIDTH + v) * at.o + c * at.c;
                float taps[TAPS][L];
                for (int lane = 0; lane < L; ++lane) {
                    for (int k = 0; k < TAPS; ++k) taps[k][lane] = from[lane * at.o + k * at.tap];
                }
                V half[3][4];
                for (int j = 0; j < 3; ++j) {
                    filter_side(load(taps[j]), load(taps[3 + j]), load(taps[6 + j]), half[j]);
                }
                for (int i = 0; i < 4; ++i) {
                    V side[4];
                    filter_side(half[0][i], half[1][i], half[2][i], side);
                    for (int j = 0; j < 4; ++j) {
                        const int64_t row = ((4 * i + j) * panels + panel) * p.c + c;
                        store(to + row * WIDTH + v, side[j]);
                    }
                }
            }
        }
    }
}

/* G^T s of four values: 3. */
KERNELS_INLINE void filter_side_back(const V (&s)[4], V (&to)[3]) {
    const V sum = 0.5f * (s[1] + s[2]);
    to[0] = s[0] + sum;
    to[1] = 0.5f * (s[1] - s[2]);
    to[2] = sum + s[3];
}

/* G^T s G of the sum of `parts`: [part,place,c,o] -> the gradient of the filter. */
void transform_filter_back(const KernelsConv3x3 &p, int threads, const float *sums, int64_t parts,
                           int64_t place, float *dfilter) {
    const Taps at(p);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < p.c; ++c) {
        for (int64_t o = 0; o < p.o; o += L) {
            V half[4][3];
            for (int i = 0; i < 4; ++i) {
                V s[4];
                for (int j = 0; j < 4; ++j) {
                    const float *from = sums + (4 * i + j) * place + c * p.o + o;
                    s[j] = load(from);
                    for (int64_t k = 1; k < parts; ++k) s[j] += load(from + k * PLACES * place);
                }
                filter_side_back(s, half[i]);
            }
            float taps[TAPS][L];
            for (int j = 0; j < 3; ++j) {
                V column[4], side[3];
                for (int i = 0; i < 4; ++i) column[i] = half[i][j];
                filter_side_back(column, side);
                for (int i = 0; i < 3; ++i) store(taps[3 * i + j], side[i]);
            }
            float *to = dfilter + at.first + o * at.o + c * at.c;
            for (int lane = 0; lane < L; ++lane) {
                for (int k = 0; k < TAPS; ++k) to[lane * at.o + k * at.tap] = taps[k][lane];
            }
        }
    }
}

// ---------------------------------------------------------------- the convolution

int64_t tiles_of(const KernelsConv3x3 &p) { return p.n * (p.h / 2) * (p.w / 2); }

/* How a call divides, and where in the scratch memory, in floats, its parts lie. */
template <int VECTORS>
struct Forward {
    static constexpr int64_t R = ROWS<VECTORS>;
    int64_t tiles, block, blocks;
    int64_t patches, products;  // from one place to the next
    int64_t filter, each;       // sizes: of the transformed filter, of what each thread has

    explicit Forward(const KernelsConv3x3 &p) : tiles(tiles_of(p)) {
        // What a block has of both kinds takes half a megabyte, of a second-level cache of one.
        const int64_t wanted = smaller(96, 8192 / (p.c + p.o));
        block = round_up(smaller(tiles, wanted < 24 ? 24 : wanted), R);
        blocks = (tiles + block - 1) / block;
        patches = block * p.c + PAD;
        products = block * p.o + PAD;
        filter = round_up(PLACES * p.c * p.o, PAD);
        each = PLACES * (patches + products);
    }

    int64_t scratch(int threads) const { return filter + threads * each; }
};

template <int VECTORS>
void convolve(const KernelsConv3x3 &p, const KernelsRun &run, const float *x, const float *filter,
              float *y) {
    constexpr int WIDTH = VECTORS * L, R = ROWS<VECTORS>;
    const Forward<VECTORS> plan(p);
    float *const factors = static_cast<float *>(run.workspace);
    transform_filter<VECTORS>(p, run.threads, filter, factors);
#pragma omp parallel for schedule(static) num_threads(run.threads) if (run.threads > 1)
    for (int64_t b = 0; b < plan.blocks; ++b) {
        float *patches = factors + plan.filter + omp_get_thread_num() * plan.each;
        float *products = patches + PLACES * plan.patches;
        const int64_t begin = b * plan.block, end = smaller(begin + plan.block, plan.tiles);
        transform_patches(p, x, begin, end, patches, plan.patches);
        const float *factor = factors;  // of place and panel
        for (int64_t place = 0; place < PLACES; ++place) {
            for (int64_t o = 0; o < p.o; o += WIDTH, factor += p.c * WIDTH) {
                for (int64_t t = 0; t < end - begin; t += R) {
                    const Strided rows{patches + place * plan.patches + t * p.c, p.c, 1};
                    float *to = products + place * plan.products + t * p.o + o;
                    multiply<VECTORS, false>(rows, factor, WIDTH, p.c, to, p.o);
                }
            }
        }
        transform_back(p, products, plan.products, begin, end, y);
    }
}

// ---------------------------------------------------------------- the gradient of the filter

template <int VECTORS>
struct Backward {
    static constexpr int64_t R = ROWS<VECTORS>, BLOCK = 64;
    int64_t tiles, blocks, parts;
    int64_t patches, gradients, sums;  // from one place to the next
    int64_t all_sums, each;            // sizes: of the sums of all parts, of what each thread has

    explicit Backward(const KernelsConv3x3 &p) : tiles(tiles_of(p)) {
        blocks = (tiles + BLOCK - 1) / BLOCK;
        parts = blocks / 4 < 1 ? 1 : smaller(blocks / 4, PARTS);
        patches = BLOCK * p.c + PAD;
        gradients = BLOCK * p.o + PAD;
        sums = round_up(p.c, R) * p.o;
        all_sums = round_up(parts * PLACES * sums, PAD);
        each = PLACES * (patches + gradients);
    }

    int64_t scratch(int threads) const { return all_sums + threads * each; }
};

template <int VECTORS>
void differentiate(const KernelsConv3x3 &p, const KernelsRun &run, const float *x, const float *dy,
                   float *dfilter) {
    constexpr int WIDTH = VECTORS * L, R = ROWS<VECTORS>;
    const Backward<VECTORS> plan(p);
    float *const all_sums = static_cast<float *>(run.workspace);
#pragma omp parallel for schedule(static) num_threads(run.threads) if (run.threads > 1)
    for (int64_t part = 0; part < plan.parts; ++part) {
        float *patches = all_sums + plan.all_sums + omp_get_thread_num() * plan.each;
        float *gradients = patches + PLACES * plan.patches;
        const int64_t first = plan.blocks * part / plan.parts;
        for (int64_t b = first; b < plan.blocks * (part + 1) / plan.parts; ++b) {
            const int64_t begin = b * plan.BLOCK, end = smaller(begin + plan.BLOCK, plan.tiles);
            transform_patches(p, x, begin, end, patches, plan.patches);
            transform_gradients(p, dy, begin, end, gradients, plan.gradients);
            const auto product = b == first ? multiply<VECTORS, false> : multiply<VECTORS, true>;
            for (int64_t place = 0; place < PLACES; ++place) {
                for (int64_t o = 0; o < p.o; o += WIDTH) {
                    const float *factor = gradients + place * plan.gradients + o;
                    float *sum = all_sums + (part * PLACES + place) * plan.sums + o;
                    for (int64_t c = 0; c < p.c; c += R) {
                        const Strided rows{patches + place * plan.patches + c, 1, p.c};
                        product(rows, factor, p.o, end - begin, sum + c * p.o, p.o);
                    }
                }
            }
        }
    }
    transform_filter_back(p, run.threads, all_sums, plan.parts, plan.sums, dfilter);
}

/* run(how many vectors a product is wide). */
template <class Run>
auto by_width(const KernelsConv3x3 &p, Run run) {
    using std::integral_constant;
    if (p.o % (WIDEST * L) == 0) return run(integral_constant<int, WIDEST>{});
    if (p.o % (2 * L) == 0) return run(integral_constant<int, 2>{});
    return run(integral_constant<int, 1>{});
}

template <template <int> class Plan>
int64_t workspace(const KernelsConv3x3 &p, const KernelsRun &run) {
    if (!is_valid(p)) return KERNELS_UNSUPPORTED;
    return by_width(p, [&](auto vectors) {
        return Plan<vectors()>(p).scratch(run.threads) * int64_t(sizeof(float));
    });
}

}  // namespace
}  // namespace kernels

using namespace kernels;

KERNELS_EXPORT int64_t kernels_conv3x3_workspace(const KernelsConv3x3 *p, const KernelsRun *run) {
    return workspace<Forward>(*p, *run);
}

KERNELS_EXPORT int32_t kernels_conv3x3(const KernelsConv3x3 *p, const void *x, const void *filter,
                                       void *y, const KernelsRun *run) {
    if (!is_valid(*p) || !x || !filter || !y) return KERNELS_UNSUPPORTED;
    if (!run->workspace) return KERNELS_NO_MEMORY;
    by_width(*p, [&](auto vectors) {
        convolve<vectors()>(*p, *run, static_cast<const float *>(x),
                            static_cast<const float *>(filter), static_cast<float *>(y));
    });
    return KERNELS_OK;
}

KERNELS_EXPORT int64_t kernels_conv3x3_gradient_workspace(const KernelsConv3x3 *p,
                                                          const KernelsRun *run) {
    return workspace<Backward>(*p, *run);
}

KERNELS_EXPORT int32_t kernels_conv3x3_gradient(const KernelsConv3x3 *p, const void *x,
                                                const void *dy, void *dfilter,
                                                const KernelsRun *run) {
    if (!is_valid(*p) || !x || !dy || !dfilter) return KERNELS_UNSUPPORTED;
    if (!run->workspace) return KERNELS_NO_MEMORY;
    by_width(*p, [&](auto vectors) {
        differentiate<vectors()>(*p, *run, static_cast<const float *>(x),
                                 static_cast<const float *>(dy), static_cast<float *>(dfilter));
    });
    return KERNELS_OK;
}

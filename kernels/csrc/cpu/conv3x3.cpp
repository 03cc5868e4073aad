/* The 3x3 convolution with padding 1, channels last, by Winograd's minimal filtering: F(2x2, 3x3)
 * of Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks").
 *
 * A tile of 2x2 outputs sees a patch d of 4x4 inputs, and y = A^T [(G g G^T) * (B^T d B)] A: 16
 * products in place of 36. Over channels each of the 16 places is a matrix product, so a block of
 * tiles is transformed, multiplied 16 times and transformed back while it lies in the cache. The
 * gradient of the filter g is the adjoint, G^T [sum of (A dy A^T) * (B^T d B)] G.
 *
 * Sums are float32. Of images in bfloat16 the factors, transformed patches and filters, are rounded
 * to that before they are multiplied: where the direct way rounds a filter once and a result once,
 * this one rounds three times. No bit of y depends on other images of the batch, nor on threads.
 */
#include "../abi.h"
#include "../valid.h"
#include "vectors.h"

#include <omp.h>

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
constexpr int64_t TASKS = 8;  // of the gradient of a filter, where there are enough tiles

int64_t round_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

/* What is multiplied: words of four bytes, each of DEPTH values that follow in a sum. */
template <class T>
struct Word {
    using type = float;
    static constexpr int DEPTH = 1;
    KERNELS_INLINE V dot(V sum, float a, V b) { return sum + splat<V>(a) * b; }
};

#if defined(__AVX512BF16__)
template <>
struct Word<BFloat16> {
    using type = uint32_t;
    static constexpr int DEPTH = 2;
    KERNELS_INLINE V dot(V sum, uint32_t a, Vector<uint32_t> b) {
        const __m512i both = _mm512_set1_epi32(static_cast<int32_t>(a));
        return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)both, (__m512bh)b);
    }
};
#endif

/* DEPTH vectors of values that follow in a sum -> a vector of words. */
KERNELS_INLINE V words(const V (&values)[1]) { return values[0]; }
KERNELS_INLINE Vector<uint32_t> words(const V (&values)[2]) {
    return Packet<BFloat16>{{values[0], values[1]}}.raw();
}

// ---------------------------------------------------------------- products

/* Where element (row, k) of a matrix lies. */
template <class W>
struct Strided {
    const W *first;
    int64_t row, step;
};

/* sum[r,v] = (or +=) sum over k of a[r,k] * b[k,v]: b and sums are rows of VECTORS vectors. */
template <class T, int VECTORS, bool ADD>
void multiply(Strided<typename Word<T>::type> a, const typename Word<T>::type *b, int64_t b_row,
              int64_t size, float *sum, int64_t sum_row) {
    constexpr int R = ROWS<VECTORS>;
    V sums[R][VECTORS];
    KERNELS_UNROLL
    for (int r = 0; r < R; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = ADD ? load<L>(sum + r * sum_row + v * L) : V{};
        }
    }
    for (int64_t k = 0; k < size; ++k) {
        Vector<typename Word<T>::type> factors[VECTORS];
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) {
            factors[v] = copied<Vector<typename Word<T>::type>>(b + v * L);
        }
        KERNELS_UNROLL
        for (int r = 0; r < R; ++r) {
            const typename Word<T>::type factor = a.first[r * a.row];
            KERNELS_UNROLL
            for (int v = 0; v < VECTORS; ++v) {
                sums[r][v] = Word<T>::dot(sums[r][v], factor, factors[v]);
            }
        }
        a.first += a.step;
        b += b_row;
    }
    KERNELS_UNROLL
    for (int r = 0; r < R; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < VECTORS; ++v) store<L>(sum + r * sum_row + v * L, sums[r][v]);
    }
}

// ---------------------------------------------------------------- tiles

/* One after another, row by row, image by image: where the outputs of a tile begin. */
struct Tile {
    int64_t h = 0, w = 0, image = 0, y = 0, x = 0;

    Tile() = default;
    Tile(const KernelsConv3x3 &p, int64_t index)
        : h(p.h), w(p.w), image(index / (h / 2 * (w / 2))), y(index / (w / 2) % (h / 2) * 2),
          x(index % (w / 2) * 2) {}

    void next() {
        if ((x += 2) < w) return;
        x = 0;
        if ((y += 2) < h) return;
        y = 0, ++image;
    }
    bool inside() const { return y > 0 && y + 2 < h && x > 0 && x + 2 < w; }
    int64_t pixel(int64_t i, int64_t j) const { return (image * h + y + i) * w + x + j; }
    bool has(int64_t i, int64_t j) const {
        return y + i >= 0 && y + i < h && x + j >= 0 && x + j < w;
    }
};

/* B^T d. */
KERNELS_INLINE void patch_side(const V (&d)[4], V (&to)[4]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
}

/* B^T d B of the patch around a tile, which lies INSIDE the image or has zeros around it. */
template <bool INSIDE, class T>
KERNELS_INLINE void patch(const T *x, int64_t channels, const Tile &tile, V (&to)[PLACES]) {
    V half[4][4];
    KERNELS_UNROLL
    for (int j = 0; j < 4; ++j) {
        V column[4], side[4];
        KERNELS_UNROLL
        for (int i = 0; i < 4; ++i) {
            const bool there = INSIDE || tile.has(i - 1, j - 1);
            column[i] = there ? load<L>(x + tile.pixel(i - 1, j - 1) * channels) : V{};
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
        for (int j = 0; j < 4; ++j) to[4 * i + j] = side[j];
    }
}

template <class T>
KERNELS_INLINE void patch(const T *x, int64_t channels, const Tile &tile, V (&to)[PLACES]) {
    if (tile.inside()) patch<true>(x, channels, tile, to);
    else patch<false>(x, channels, tile, to);
}

/* A^T m A -> the outputs of a tile. */
template <class T>
KERNELS_INLINE void outputs(const float *products, int64_t place, const Tile &tile,
                            int64_t channels, T *y) {
    V half[2][4];
    KERNELS_UNROLL
    for (int j = 0; j < 4; ++j) {
        V m[4];
        KERNELS_UNROLL
        for (int i = 0; i < 4; ++i) m[i] = load<L>(products + (4 * i + j) * place);
        half[0][j] = m[0] + m[1] + m[2];
        half[1][j] = m[1] - m[2] - m[3];
    }
    KERNELS_UNROLL
    for (int i = 0; i < 2; ++i) {
        const V(&m)[4] = half[i];
        store<L>(y + tile.pixel(i, 0) * channels, m[0] + m[1] + m[2]);
        store<L>(y + tile.pixel(i, 1) * channels, m[1] - m[2] - m[3]);
    }
}

/* A d A^T of the 2x2 gradients of a tile. */
template <class T>
KERNELS_INLINE void gradients(const T *dy, int64_t channels, const Tile &tile, V (&to)[PLACES]) {
    V half[4][2];
    KERNELS_UNROLL
    for (int j = 0; j < 2; ++j) {
        const V upper = load<L>(dy + tile.pixel(0, j) * channels);
        const V lower = load<L>(dy + tile.pixel(1, j) * channels);
        half[0][j] = upper;
        half[1][j] = upper + lower;
        half[2][j] = upper - lower;
        half[3][j] = -lower;
    }
    KERNELS_UNROLL
    for (int i = 0; i < 4; ++i) {
        const V left = half[i][0], right = half[i][1];
        to[4 * i] = left;
        to[4 * i + 1] = left + right;
        to[4 * i + 2] = left - right;
        to[4 * i + 3] = -right;
    }
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

/* x[0], x[step], x[2 step], ... */
KERNELS_INLINE V gathered(const float *x, int64_t step) {
#if defined(__AVX512F__)
    const Vector<uint32_t> lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const auto places = (__m512i)(lane * static_cast<uint32_t>(step));
    const __m512 unread = _mm512_setzero_ps();  // a mask of ones: see lanes.h
    return (V)_mm512_mask_i32gather_ps(unread, 0xffff, places, x, sizeof(float));
#else
    V v = {};
    for (int lane = 0; lane < L; ++lane) v[lane] = x[lane * step];
    return v;
#endif
}

/* G g G^T of L outputs from o on and of one input. */
KERNELS_INLINE void transformed_filter(const Taps &at, const float *filter, int64_t o, int64_t c,
                                       V (&to)[PLACES]) {
    const float *from = filter + at.first + o * at.o + c * at.c;
    V half[3][4];
    KERNELS_UNROLL
    for (int j = 0; j < 3; ++j) {
        V column[3];
        KERNELS_UNROLL
        for (int i = 0; i < 3; ++i) column[i] = gathered(from + (3 * i + j) * at.tap, at.o);
        filter_side(column[0], column[1], column[2], half[j]);
    }
    KERNELS_UNROLL
    for (int i = 0; i < 4; ++i) {
        V side[4];
        filter_side(half[0][i], half[1][i], half[2][i], side);
        KERNELS_UNROLL
        for (int j = 0; j < 4; ++j) to[4 * i + j] = side[j];
    }
}

/* The filter -> words [place,panel,c,column], o being column + panel * WIDTH. */
template <class T, int VECTORS>
void transform_filter(const KernelsConv3x3 &p, int threads, const float *filter,
                      typename Word<T>::type *to) {
    constexpr int WIDTH = VECTORS * L, DEPTH = Word<T>::DEPTH;
    const int64_t panels = p.o / WIDTH, depth = p.c / DEPTH;
    const Taps at(p);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t c = 0; c < depth; ++c) {
            for (int64_t v = 0; v < WIDTH; v += L) {
                V factors[DEPTH][PLACES];
                KERNELS_UNROLL
                for (int d = 0; d < DEPTH; ++d) {
                    transformed_filter(at, filter, panel * WIDTH + v, c * DEPTH + d, factors[d]);
                }
                for (int place = 0; place < PLACES; ++place) {
                    V values[DEPTH];
                    for (int d = 0; d < DEPTH; ++d) values[d] = factors[d][place];
                    const auto word = words(values);
                    std::memcpy(to + ((place * panels + panel) * depth + c) * WIDTH + v, &word,
                                sizeof word);
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

/* G^T s G of the sum over parts of [part,panel,place,c,column] -> the gradient of the filter. */
template <int VECTORS>
void transform_filter_back(const KernelsConv3x3 &p, int threads, const float *sums, int64_t parts,
                           int64_t place, float *dfilter) {
    constexpr int WIDTH = VECTORS * L;
    const Taps at(p);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < p.c; ++c) {
        for (int64_t o = 0; o < p.o; o += L) {
            const float *first = sums + o / WIDTH * PLACES * place + c * WIDTH + o % WIDTH;
            V half[4][3];
            for (int i = 0; i < 4; ++i) {
                V s[4];
                for (int j = 0; j < 4; ++j) {
                    const float *from = first + (4 * i + j) * place;
                    s[j] = load<L>(from);
                    for (int64_t part = 1; part < parts; ++part) {
                        s[j] += load<L>(from + part * (p.o / WIDTH) * PLACES * place);
                    }
                }
                filter_side_back(s, half[i]);
            }
            float *to = dfilter + at.first + o * at.o + c * at.c;
            for (int j = 0; j < 3; ++j) {
                V column[4], side[3];
                for (int i = 0; i < 4; ++i) column[i] = half[i][j];
                filter_side_back(column, side);
                for (int i = 0; i < 3; ++i) {
                    float *tap = to + (3 * i + j) * at.tap;
                    for (int lane = 0; lane < L; ++lane) tap[lane * at.o] = side[i][lane];
                }
            }
        }
    }
}

// ---------------------------------------------------------------- the convolution

int64_t tiles_of(const KernelsConv3x3 &p) { return p.n * (p.h / 2) * (p.w / 2); }

/* How a call divides, and where in the scratch memory, in words, its parts lie. */
template <class T, int VECTORS>
struct Forward {
    static constexpr int64_t R = ROWS<VECTORS>;
    int64_t tiles, block, blocks;
    int64_t depth;              // words of the channels of a tile
    int64_t patches, products;  // from one place to the next
    int64_t filter, each;       // sizes: of the transformed filter, of what each thread has

    explicit Forward(const KernelsConv3x3 &p) : tiles(tiles_of(p)), depth(p.c / Word<T>::DEPTH) {
        // What a block has of both kinds takes half a megabyte, of a second-level cache of one.
        const int64_t wanted = larger(24, smaller(96, 8192 / (depth + p.o)));
        block = round_up(smaller(tiles, wanted), R);
        blocks = (tiles + block - 1) / block;
        patches = block * depth + PAD;
        products = block * p.o + PAD;
        filter = round_up(PLACES * depth * p.o, PAD);
        each = PLACES * (patches + products);
    }

    int64_t scratch(int threads) const { return filter + threads * each; }
};

/* The patches of tiles -> values [place,tile,c]. */
template <class T>
void transform_patches(const KernelsConv3x3 &p, const T *x, int64_t begin, int64_t end, T *to,
                       int64_t place) {
    Tile tile(p, begin);
    for (int64_t t = begin; t < end; ++t, tile.next(), to += p.c) {
        for (int64_t c = 0; c < p.c; c += L) {
            V values[PLACES];
            patch(x + c, p.c, tile, values);
            KERNELS_UNROLL
            for (int i = 0; i < PLACES; ++i) store<L>(to + i * place + c, values[i]);
        }
    }
}

template <class T, int VECTORS>
void convolve(const KernelsConv3x3 &p, const KernelsRun &run, const T *x, const float *filter,
              T *y) {
    using W = typename Word<T>::type;
    constexpr int WIDTH = VECTORS * L, R = ROWS<VECTORS>;
    const Forward<T, VECTORS> plan(p);
    W *const factors = static_cast<W *>(run.workspace);
    transform_filter<T, VECTORS>(p, run.threads, filter, factors);
#pragma omp parallel for schedule(static) num_threads(run.threads) if (run.threads > 1)
    for (int64_t b = 0; b < plan.blocks; ++b) {
        W *patches = factors + plan.filter + omp_get_thread_num() * plan.each;
        float *products = reinterpret_cast<float *>(patches + PLACES * plan.patches);
        const int64_t begin = b * plan.block, end = smaller(begin + plan.block, plan.tiles);
        transform_patches(p, x, begin, end, reinterpret_cast<T *>(patches),
                          plan.patches * Word<T>::DEPTH);
        const W *factor = factors;  // of place and panel
        for (int64_t place = 0; place < PLACES; ++place) {
            for (int64_t o = 0; o < p.o; o += WIDTH, factor += plan.depth * WIDTH) {
                for (int64_t t = 0; t < end - begin; t += R) {
                    const Strided<W> rows{patches + place * plan.patches + t * plan.depth,
                                          plan.depth, 1};
                    float *to = products + place * plan.products + t * p.o + o;
                    multiply<T, VECTORS, false>(rows, factor, WIDTH, plan.depth, to, p.o);
                }
            }
        }
        Tile tile(p, begin);
        for (int64_t t = 0; t < end - begin; ++t, tile.next()) {
            for (int64_t o = 0; o < p.o; o += L) {
                outputs(products + t * p.o + o, plan.products, tile, p.o, y + o);
            }
        }
    }
}

// ---------------------------------------------------------------- the gradient of the filter

/* A task has a part of the tiles and a panel of WIDTH outputs, whose sums stay in the cache: it
 * transforms its patches again for every panel, which costs less than larger sums would. */
template <class T, int VECTORS>
struct Backward {
    static constexpr int64_t WIDTH = VECTORS * L, DEPTH = Word<T>::DEPTH, BLOCK = 64 * DEPTH;
    int64_t tiles, blocks, panels, parts;
    int64_t patches, gradients, sums;  // from one place to the next
    int64_t all_sums, each;            // sizes: of the sums of all tasks, of what each thread has

    explicit Backward(const KernelsConv3x3 &p) : tiles(tiles_of(p)), panels(p.o / WIDTH) {
        blocks = (tiles + BLOCK - 1) / BLOCK;
        parts = larger(1, smaller(tiles / 256, TASKS / panels));
        patches = BLOCK / DEPTH * p.c + PAD;
        gradients = BLOCK / DEPTH * WIDTH + PAD;
        sums = round_up(p.c, ROWS<VECTORS>) * WIDTH;
        all_sums = round_up(parts * panels * PLACES * sums, PAD);
        each = PLACES * (patches + gradients);
    }

    int64_t scratch(int threads) const { return all_sums + threads * each; }
};

/* transform(tile, channel, values [PLACES]) of tiles -> words [place,tile,channel]: a word holds
 * tiles that follow each other, and zeros behind the last. */
template <class T, class Transform>
KERNELS_INLINE void transform_tiles(const KernelsConv3x3 &p, int64_t channels, int64_t begin,
                                    int64_t end, typename Word<T>::type *to, int64_t place,
                                    Transform transform) {
    constexpr int DEPTH = Word<T>::DEPTH;
    Tile tile(p, begin);
    for (int64_t t = begin; t < end; t += DEPTH, to += channels) {
        Tile each[DEPTH];
        for (int d = 0; d < DEPTH; ++d, tile.next()) each[d] = tile;
        for (int64_t c = 0; c < channels; c += L) {
            V values[DEPTH][PLACES] = {};
            for (int d = 0; d < DEPTH && t + d < end; ++d) transform(each[d], c, values[d]);
            KERNELS_UNROLL
            for (int i = 0; i < PLACES; ++i) {
                V both[DEPTH];
                for (int d = 0; d < DEPTH; ++d) both[d] = values[d][i];
                const auto word = words(both);
                std::memcpy(to + i * place + c, &word, sizeof word);
            }
        }
    }
}

template <class T, int VECTORS>
void differentiate(const KernelsConv3x3 &p, const KernelsRun &run, const T *x, const T *dy,
                   float *dfilter) {
    using W = typename Word<T>::type;
    const Backward<T, VECTORS> plan(p);
    float *const all_sums = static_cast<float *>(run.workspace);
    W *const scratch = reinterpret_cast<W *>(all_sums + plan.all_sums);
#pragma omp parallel for schedule(static) num_threads(run.threads) if (run.threads > 1)
    for (int64_t task = 0; task < plan.parts * plan.panels; ++task) {
        W *patches = scratch + omp_get_thread_num() * plan.each;
        W *factors = patches + PLACES * plan.patches;
        float *const sums = all_sums + task * PLACES * plan.sums;
        const int64_t part = task / plan.panels, first = plan.blocks * part / plan.parts;
        const T *const own = dy + task % plan.panels * plan.WIDTH;
        for (int64_t b = first; b < plan.blocks * (part + 1) / plan.parts; ++b) {
            const int64_t begin = b * plan.BLOCK, end = smaller(begin + plan.BLOCK, plan.tiles);
            transform_tiles<T>(p, p.c, begin, end, patches, plan.patches,
                               [&](const Tile &tile, int64_t c, V(&to)[PLACES]) {
                                   patch(x + c, p.c, tile, to);
                               });
            transform_tiles<T>(p, plan.WIDTH, begin, end, factors, plan.gradients,
                               [&](const Tile &tile, int64_t o, V(&to)[PLACES]) {
                                   gradients(own + o, p.o, tile, to);
                               });
            const auto product = b == first ? multiply<T, VECTORS, false>  //
                                            : multiply<T, VECTORS, true>;
            const int64_t depth = (end - begin + plan.DEPTH - 1) / plan.DEPTH;
            for (int64_t place = 0; place < PLACES; ++place) {
                const W *factor = factors + place * plan.gradients;
                float *sum = sums + place * plan.sums;
                for (int64_t c = 0; c < p.c; c += ROWS<VECTORS>) {
                    const Strided<W> rows{patches + place * plan.patches + c, 1, p.c};
                    product(rows, factor, plan.WIDTH, depth, sum + c * plan.WIDTH, plan.WIDTH);
                }
            }
        }
    }
    transform_filter_back<VECTORS>(p, run.threads, all_sums, plan.parts, plan.sums, dfilter);
}

// ---------------------------------------------------------------- types and widths

/* run(a value of the type of images, how many vectors a product is wide). */
template <class T, class Run>
int64_t by_width(const KernelsConv3x3 &p, Run run) {
    using std::integral_constant;
    if (p.o % (WIDEST * L) == 0) return run(T{}, integral_constant<int, WIDEST>{});
    if (p.o % (2 * L) == 0) return run(T{}, integral_constant<int, 2>{});
    return run(T{}, integral_constant<int, 1>{});
}

/* The same for what this library computes; KERNELS_UNSUPPORTED for the rest. */
template <class Run>
int64_t by_type(const KernelsConv3x3 &p, Run run) {
    if (!is_valid(p)) return KERNELS_UNSUPPORTED;
    if (p.dtype == KERNELS_FLOAT32) return by_width<float>(p, run);
#if defined(__AVX512BF16__)
    if (p.dtype == KERNELS_BFLOAT16) return by_width<BFloat16>(p, run);
#endif
    return KERNELS_UNSUPPORTED;
}

template <template <class, int> class Plan>
int64_t workspace(const KernelsConv3x3 &p, const KernelsRun &run) {
    return by_type(p, [&](auto type, auto vectors) -> int64_t {
        return Plan<decltype(type), vectors()>(p).scratch(run.threads) * int64_t(sizeof(float));
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
    if (!x || !filter || !y) return KERNELS_UNSUPPORTED;
    return static_cast<int32_t>(by_type(*p, [&](auto type, auto vectors) -> int64_t {
        using T = decltype(type);
        if (!run->workspace) return KERNELS_NO_MEMORY;
        convolve<T, vectors()>(*p, *run, static_cast<const T *>(x),
                               static_cast<const float *>(filter), static_cast<T *>(y));
        return KERNELS_OK;
    }));
}

KERNELS_EXPORT int64_t kernels_conv3x3_gradient_workspace(const KernelsConv3x3 *p,
                                                          const KernelsRun *run) {
    return workspace<Backward>(*p, *run);
}

KERNELS_EXPORT int32_t kernels_conv3x3_gradient(const KernelsConv3x3 *p, const void *x,
                                                const void *dy, void *dfilter,
                                                const KernelsRun *run) {
    if (!x || !dy || !dfilter) return KERNELS_UNSUPPORTED;
    return static_cast<int32_t>(by_type(*p, [&](auto type, auto vectors) -> int64_t {
        using T = decltype(type);
        if (!run->workspace) return KERNELS_NO_MEMORY;
        differentiate<T, vectors()>(*p, *run, static_cast<const T *>(x),
                                    static_cast<const T *>(dy), static_cast<float *>(dfilter));
        return KERNELS_OK;
    }));
}

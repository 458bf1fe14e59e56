/* RetinaFace before and after the network, for devices without Python: a frame becomes the network's input, and the
 * network's raw outputs become faces. The twin of runtime/ops, step by step: the
 * same input bytes, and the same faces in the same order.
 *
 * C99 and libm; no allocation, no state, no globals that change. All memory is the caller's:
 *
 *     rfe_letterbox box;                                   once for each size of frames
 *     rfe_letterbox_init(&box, frame_width, frame_height);
 *     uint8_t *rows = ...;                                 rfe_rows_bytes(frame_width) bytes
 *     image = rfe_network_input(&box, &frame, rows, input);    input: RFE_INPUT_BYTES bytes; run the network on image
 *     rfe_candidate candidates[RFE_ANCHORS];
 *     count = rfe_postprocess(outputs, &box, 0.5, 0.4, candidates, RFE_ANCHORS, faces, max_faces);
 *
 * example.c beside this file is a whole program.
 */
#ifndef RETINAFACE_EDGE_H
#define RETINAFACE_EDGE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* <constants> of the detector that this header was written for */
#define RFE_INPUT_WIDTH 640
#define RFE_INPUT_HEIGHT 480
#define RFE_LEVELS 3
#define RFE_ANCHORS 12600
#define RFE_MAX_SIZES 2
static const uint8_t rfe_mean[3] = {104, 117, 123};
static const int32_t rfe_strides[RFE_LEVELS] = {8, 16, 32};
static const int32_t rfe_sizes[RFE_LEVELS] = {2, 2, 2};
static const double rfe_anchor_sizes[RFE_LEVELS][RFE_MAX_SIZES] = {{16, 32}, {64, 128}, {256, 512}};
static const double rfe_variances[2] = {0.1, 0.2};
/* </constants> */

#define RFE_INPUT_BYTES (RFE_INPUT_WIDTH * RFE_INPUT_HEIGHT * 3)
#define RFE_OUTPUTS (3 * RFE_LEVELS)
#define RFE_MAX_FRAME_SIDE 32767
#define RFE_RAW_LIMIT 500.0 /* a raw value beyond this is damage, and drops its candidate as NaN does */

/* What a function gives instead of a count when it cannot do its work. */
#define RFE_BAD_ARGUMENT (-1)
#define RFE_TOO_MANY_CANDIDATES (-2)

typedef enum { RFE_BGR, RFE_RGB, RFE_GREY } rfe_colour;

/* A frame. Strides are bytes from a pixel to the one below it and to the one on its right; any sign. */
typedef struct {
    const uint8_t *pixels;
    ptrdiff_t row_stride;
    ptrdiff_t column_stride;
    rfe_colour colour;
} rfe_frame;

/* One axis: target i is (first[i] * (256 - weight[i]) + second[i] * weight[i] + 128) / 256. */
typedef struct {
    int32_t first;
    int32_t second;
    uint16_t weight;
} rfe_tap;

/* Where frames of one size lie in the input: its top left width x height pixels. */
typedef struct {
    int32_t frame_width;
    int32_t frame_height;
    int32_t width;
    int32_t height;
    int32_t column_step; /* n when every target reads source columns[0].first + n * i with one weight; otherwise 0 */
    uint16_t column_weights[3 * RFE_INPUT_WIDTH]; /* a byte's, of the second neighbour */
    rfe_tap columns[RFE_INPUT_WIDTH];
    rfe_tap rows[RFE_INPUT_HEIGHT];
} rfe_letterbox;

typedef enum { RFE_FLOAT32, RFE_INT8, RFE_UINT8 } rfe_type;

/* A raw output as the network gives it, NHWC: real = (value - zero_point) * scale; floats have scale 1, zero point 0.
 * Order: score, box and landmark, each of them by rising stride. */
typedef struct {
    const void *data;
    rfe_type type;
    int32_t zero_point;
    double scale;
} rfe_output;

/* Working memory of rfe_postprocess. */
typedef struct {
    double logit;
    double box[4];
    int32_t anchor;
    int32_t open;
} rfe_candidate;

/* A face in pixels of the frame. Landmarks, x then y: left eye, right eye, nose, left and right mouth corner. */
typedef struct {
    double score;
    double box[4];
    double landmarks[10];
} rfe_face;

/* ---- before the network ---- */

static inline int32_t rfe_scaled(int32_t side, int32_t numerator, int32_t denominator) {
    int64_t scaled = ((int64_t)side * numerator + denominator / 2) / denominator;
    return scaled < 1 ? 1 : (int32_t)scaled;
}

/* Source position of target i: (i + 1/2) * source / target - 1/2. */
static inline void rfe_taps(int32_t source, int32_t target, rfe_tap *taps) {
    int64_t denominator = 2 * (int64_t)target;
    for (int32_t i = 0; i < target; i++) {
        int64_t numerator = (2 * (int64_t)i + 1) * source - target;
        int64_t first = 0;
        if (numerator < 0) {
            numerator = 0;
        }
        first = numerator / denominator;
        taps[i].weight = (uint16_t)((numerator % denominator * 256 + target) / denominator);
        taps[i].first = (int32_t)(first < source - 1 ? first : source - 1);
        taps[i].second = (int32_t)(first + 1 < source - 1 ? first + 1 : source - 1);
    }
}

/* Placement and tables for frames of one size. 0, or RFE_BAD_ARGUMENT for a side below 1 or above 32767. */
static inline int32_t rfe_letterbox_init(rfe_letterbox *box, int32_t frame_width, int32_t frame_height) {
    if (frame_width < 1 || frame_height < 1 || frame_width > RFE_MAX_FRAME_SIDE || frame_height > RFE_MAX_FRAME_SIDE) {
        return RFE_BAD_ARGUMENT;
    }
    box->frame_width = frame_width;
    box->frame_height = frame_height;
    if ((int64_t)RFE_INPUT_WIDTH * frame_height <= (int64_t)RFE_INPUT_HEIGHT * frame_width) {
        box->width = RFE_INPUT_WIDTH;
        box->height = rfe_scaled(frame_height, RFE_INPUT_WIDTH, frame_width);
    } else {
        box->width = rfe_scaled(frame_width, RFE_INPUT_HEIGHT, frame_height);
        box->height = RFE_INPUT_HEIGHT;
    }
    rfe_taps(frame_width, box->width, box->columns);
    rfe_taps(frame_height, box->height, box->rows);
    for (int32_t i = 0; i < 3 * box->width; i++) {
        box->column_weights[i] = box->columns[i / 3].weight;
    }
    box->column_step = frame_width % box->width == 0 ? frame_width / box->width : 0;
    return 0;
}

/* A row of the frame or of the input, whichever is longer, with room to read and write pixels as words. */
static inline size_t rfe_row_bytes(int32_t frame_width) {
    return (size_t)(frame_width > RFE_INPUT_WIDTH ? frame_width : RFE_INPUT_WIDTH) * 3 + 4;
}

/* Bytes of working memory that rfe_letterbox_run needs. */
static inline size_t rfe_rows_bytes(int32_t frame_width) { return 3 * rfe_row_bytes(frame_width); }

/* One row of the frame as packed BGR bytes: the frame's own where they are that already, otherwise `row`. */
static inline const uint8_t *rfe_packed_row(const rfe_frame *frame, int32_t y, int32_t width, uint8_t *row) {
    const uint8_t *source = frame->pixels + frame->row_stride * y;
    if (frame->colour == RFE_BGR && frame->column_stride == 3) {
        return source;
    }
    for (int32_t x = 0; x < width; x++) {
        const uint8_t *pixel = source + frame->column_stride * x;
        row[3 * x] = frame->colour == RFE_RGB ? pixel[2] : pixel[0];
        row[3 * x + 1] = frame->colour == RFE_GREY ? pixel[0] : pixel[1];
        row[3 * x + 2] = frame->colour == RFE_BGR ? pixel[2] : pixel[0];
    }
    return row;
}

/* out = (first * (256 - weight) + second * weight + 128) / 256. `out` is other memory than both. */
static inline void rfe_blend(const uint8_t *restrict first, const uint8_t *restrict second, uint16_t weight,
                             int32_t bytes, uint8_t *restrict out) {
    const uint16_t w2 = weight;
    const uint16_t w1 = (uint16_t)(256 - weight);
    if (weight == 128) { /* the same value in one operation of most machines */
        for (int32_t i = 0; i < bytes; i++) {
            out[i] = (uint8_t)((first[i] + second[i] + 1) >> 1);
        }
        return;
    }
    for (int32_t i = 0; i < bytes; i++) { /* at most 255 * 256 + 128: 16 bits hold it */
        out[i] = (uint8_t)((uint16_t)(first[i] * w1 + second[i] * w2 + 128) >> 8);
    }
}

/* The horizontal pass over one packed row, after which at least one more byte can be read: both neighbours of every
 * target are gathered, a word each, and then blended in one long loop that compilers vectorise. `first` and `second` are
 * working memory of 3 * RFE_INPUT_WIDTH + 4 bytes. */
static inline void rfe_blend_columns(const rfe_letterbox *box, const uint8_t *restrict row, uint8_t *restrict first,
                                     uint8_t *restrict second, uint8_t *restrict out) {
    const int32_t bytes = 3 * box->width;
    for (int32_t x = 0; x < box->width; x++) { /* the fourth byte is overwritten by the next pixel */
        memcpy(first + 3 * x, row + 3 * box->columns[x].first, 4);
        memcpy(second + 3 * x, row + 3 * box->columns[x].second, 4);
    }
    for (int32_t i = 0; i < bytes; i++) {
        const uint16_t weight = box->column_weights[i];
        out[i] = (uint8_t)((uint16_t)(first[i] * (256 - weight) + second[i] * weight + 128) >> 8);
    }
}

/* Every n-th pixel of a packed row, from the first tap on. */
static inline void rfe_pick_columns(const rfe_letterbox *box, const uint8_t *restrict row, uint8_t *restrict out) {
    const ptrdiff_t step = 3 * (ptrdiff_t)box->column_step;
    int32_t left = box->width - 1;
    row += 3 * box->columns[0].first;
    for (; left >= 4; left -= 4) {
        for (int32_t i = 0; i < 4; i++) { /* the fourth byte is overwritten by the next pixel */
            memcpy(out + 3 * i, row + step * i, 4);
        }
        row += 4 * step;
        out += 12;
    }
    for (; left > 0; left--) {
        memcpy(out, row, 3);
        row += step;
        out += 3;
    }
    memcpy(out, row, 3);
}

/* One row of the picture. `rows` is working memory as for rfe_letterbox_run. */
static inline void rfe_letterbox_row(const rfe_letterbox *box, const rfe_frame *frame, int32_t y, uint8_t *rows,
                                     uint8_t *out) {
    const int32_t bytes = box->frame_width * 3;
    uint8_t *const spare = rows + rfe_row_bytes(box->frame_width);
    uint8_t *const blended = spare + rfe_row_bytes(box->frame_width);
    const rfe_tap *const tap = &box->rows[y];
    const uint8_t *row = rfe_packed_row(frame, tap->first, box->frame_width, rows);
    if (tap->weight != 0) {
        rfe_blend(row, rfe_packed_row(frame, tap->second, box->frame_width, spare), tap->weight, bytes, blended);
        row = blended;
    }
    if (box->column_step == 1) {
        memcpy(out, row, (size_t)bytes);
    } else if (box->column_step > 1) {
        if (box->columns[0].weight != 0) { /* all neighbours, though every n-th is wanted: compilers vectorise it */
            rfe_blend(row, row + 3, 128, bytes - 3, spare);
            row = spare;
        }
        rfe_pick_columns(box, row, out);
    } else {
        if (row != blended) { /* the frame's own memory may end with its last pixel */
            memcpy(blended, row, (size_t)bytes);
        }
        rfe_blend_columns(box, blended, rows, spare, out);
    }
}

/* Write the frame into `input`, RFE_INPUT_BYTES bytes, NHWC, BGR. `rows` has rfe_rows_bytes(frame_width) bytes. */
static inline void rfe_letterbox_run(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows, uint8_t *input) {
    const size_t pitch = (size_t)RFE_INPUT_WIDTH * 3;
    memset(rows, 0, rfe_rows_bytes(box->frame_width)); /* words are read past the last pixel of a row */
    for (int32_t y = 0; y < RFE_INPUT_HEIGHT; y++) {
        uint8_t *const out = input + (size_t)y * pitch;
        const int32_t picture = y < box->height ? box->width : 0;
        if (picture != 0) {
            rfe_letterbox_row(box, frame, y, rows, out);
        }
        if (y != 0 && y != box->height) { /* the border above is this row's, too */
            memcpy(out + 3 * picture, out + 3 * picture - pitch, pitch - 3 * (size_t)picture);
            continue;
        }
        for (int32_t x = picture; x < RFE_INPUT_WIDTH; x++) {
            memcpy(out + 3 * x, rfe_mean, 3);
        }
    }
}

/* What the network reads for a frame: the frame's own memory where that is its input already, as a camera of this size
 * gives it, which then must stay until the network has run; otherwise `input`, written by rfe_letterbox_run. */
static inline const uint8_t *rfe_network_input(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows,
                                               uint8_t *input) {
    if (box->frame_width == RFE_INPUT_WIDTH && box->frame_height == RFE_INPUT_HEIGHT && frame->colour == RFE_BGR &&
        frame->column_stride == 3 && frame->row_stride == RFE_INPUT_WIDTH * 3) {
        return frame->pixels;
    }
    rfe_letterbox_run(box, frame, rows, input);
    return input;
}

/* ---- after the network ---- */

static inline double rfe_real(const rfe_output *output, size_t index) {
    if (output->type == RFE_FLOAT32) {
        return (double)((const float *)output->data)[index];
    }
    if (output->type == RFE_INT8) {
        return (((const int8_t *)output->data)[index] - (double)output->zero_point) * output->scale;
    }
    return (((const uint8_t *)output->data)[index] - (double)output->zero_point) * output->scale;
}

/* The logit whose sigmoid is `score`. */
static inline double rfe_logit(double score) {
    if (score <= 0.0 || score >= 1.0) {
        return score < 0.5 ? -(double)INFINITY : (double)INFINITY;
    }
    return log(score / (1.0 - score));
}

static inline int32_t rfe_anchors_of(int32_t level) {
    return (RFE_INPUT_WIDTH / rfe_strides[level]) * (RFE_INPUT_HEIGHT / rfe_strides[level]) * rfe_sizes[level];
}

/* Centre of an anchor, by its index within its level, and its size. */
static inline double rfe_anchor(int32_t level, int32_t index, double centre[2]) {
    const int32_t width = RFE_INPUT_WIDTH / rfe_strides[level];
    const int32_t cell = index / rfe_sizes[level];
    centre[0] = (cell % width + 0.5) * rfe_strides[level];
    centre[1] = (cell / width + 0.5) * rfe_strides[level];
    return rfe_anchor_sizes[level][index % rfe_sizes[level]];
}

static inline int rfe_usable(const rfe_output *output, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        if (!(fabs(rfe_real(output, i)) <= RFE_RAW_LIMIT)) { /* NaN is not */
            return 0;
        }
    }
    return 1;
}

/* Fill in the candidate at an index within a level; 0 when one of its values is NaN, infinite or damage. */
static inline int rfe_decode(const rfe_output *outputs, int32_t level, int32_t index, rfe_candidate *candidate) {
    const rfe_output *const box = &outputs[RFE_LEVELS + level];
    const size_t first = (size_t)index * 4;
    double centre[2];
    const double size = rfe_anchor(level, index, centre);
    if (!rfe_usable(&outputs[level], (size_t)index, 1) || !rfe_usable(box, first, 4) ||
        !rfe_usable(&outputs[2 * RFE_LEVELS + level], (size_t)index * 10, 10)) {
        return 0;
    }
    candidate->logit = rfe_real(&outputs[level], (size_t)index);
    for (size_t i = 0; i < 2; i++) {
        const double middle = centre[i] + rfe_variances[0] * rfe_real(box, first + i) * size;
        const double half = 0.5 * size * exp(rfe_variances[1] * rfe_real(box, first + 2 + i));
        candidate->box[i] = middle - half;
        candidate->box[2 + i] = middle + half;
    }
    candidate->open = 1;
    return 1;
}

/* Candidates of one level, appended; the new count, or RFE_TOO_MANY_CANDIDATES. Scores are compared in their own type,
 * so that whoever is no candidate costs one comparison. */
static inline int32_t rfe_find(const rfe_output *outputs, int32_t level, int32_t offset, double logit,
                               rfe_candidate *candidates, int32_t count, int32_t capacity) {
    const rfe_output *const score = &outputs[level];
    const int32_t anchors = rfe_anchors_of(level);
    const float *const reals = (const float *)score->data;
    const int8_t *const integers = (const int8_t *)score->data;
    const uint8_t *const naturals = (const uint8_t *)score->data;
    const float least_real = (float)logit;
    const double bound = score->type == RFE_FLOAT32 ? 0.0 : ceil(logit / score->scale + score->zero_point);
    const int32_t least = bound > 1000.0 ? 1000 : bound < -1000.0 ? -1000 : (int32_t)bound;
    enum { RUN = 32 };
    for (int32_t start = 0; start < anchors; start += RUN) {
        const int32_t end = start + RUN < anchors ? start + RUN : anchors;
        int32_t any = 0;
        if (score->type == RFE_FLOAT32) {
            for (int32_t i = start; i < end; i++) {
                any |= reals[i] >= least_real;
            }
        } else if (score->type == RFE_INT8) {
            for (int32_t i = start; i < end; i++) {
                any |= integers[i] >= least;
            }
        } else {
            for (int32_t i = start; i < end; i++) {
                any |= naturals[i] >= least;
            }
        }
        for (int32_t i = start; any && i < end; i++) {
            const int reaches = score->type == RFE_FLOAT32 ? reals[i] >= least_real
                                : score->type == RFE_INT8  ? integers[i] >= least
                                                           : naturals[i] >= least;
            rfe_candidate found;
            if (!reaches || !rfe_decode(outputs, level, i, &found)) {
                continue;
            }
            if (count == capacity) {
                return RFE_TOO_MANY_CANDIDATES;
            }
            found.anchor = offset + i;
            candidates[count++] = found;
        }
    }
    return count;
}

/* Whether the intersection of two boxes over their union is above the threshold. */
static inline int rfe_overlaps(const double *a, const double *b, double iou_threshold) {
    const double width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    const double height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    const double overlap = (width > 0.0 ? width : 0.0) * (height > 0.0 ? height : 0.0);
    const double area_a = (a[2] - a[0]) * (a[3] - a[1]);
    const double area_b = (b[2] - b[0]) * (b[3] - b[1]);
    return overlap > iou_threshold * (area_a + area_b - overlap);
}

static inline void rfe_write_face(const rfe_output *outputs, const rfe_letterbox *box, const rfe_candidate *candidate,
                                  rfe_face *face) {
    const double scale[2] = {(double)box->frame_width / box->width, (double)box->frame_height / box->height};
    int32_t level = 0;
    int32_t index = candidate->anchor;
    double centre[2];
    double size;
    while (index >= rfe_anchors_of(level)) {
        index -= rfe_anchors_of(level++);
    }
    size = rfe_anchor(level, index, centre);
    face->score = 1.0 / (1.0 + exp(-candidate->logit));
    for (size_t i = 0; i < 4; i++) {
        face->box[i] = candidate->box[i] * scale[i % 2];
    }
    for (size_t i = 0; i < 10; i++) {
        const double value = rfe_real(&outputs[2 * RFE_LEVELS + level], (size_t)index * 10 + i);
        face->landmarks[i] = (centre[i % 2] + rfe_variances[0] * value * size) * scale[i % 2];
    }
}

/* The faces of one frame, best first (by logit, then by the lower anchor), at most `max_faces` of them; their number,
 * RFE_BAD_ARGUMENT for a threshold outside 0..1, or RFE_TOO_MANY_CANDIDATES when `capacity` is too small (with
 * RFE_ANCHORS candidates it never is). */
static inline int32_t rfe_postprocess(const rfe_output outputs[RFE_OUTPUTS], const rfe_letterbox *box,
                                      double score_threshold, double iou_threshold, rfe_candidate *candidates,
                                      int32_t capacity, rfe_face *faces, int32_t max_faces) {
    int32_t count = 0;
    int32_t kept = 0;
    int32_t offset = 0;
    const double logit = rfe_logit(score_threshold);
    if (!(score_threshold >= 0.0 && score_threshold <= 1.0 && iou_threshold >= 0.0 && iou_threshold <= 1.0)) {
        return RFE_BAD_ARGUMENT;
    }
    for (int32_t level = 0; level < RFE_LEVELS; level++) {
        count = rfe_find(outputs, level, offset, logit, candidates, count, capacity);
        if (count < 0) {
            return count;
        }
        offset += rfe_anchors_of(level);
    }
    /* Non-maximum suppression without a sort: the best that is still open is a face, and closes those it overlaps.
     * Candidates are in the order of their anchors, so the first of equals is the lower anchor. */
    while (kept < max_faces) {
        const rfe_candidate *best = NULL;
        for (int32_t i = 0; i < count; i++) {
            if (candidates[i].open && (best == NULL || candidates[i].logit > best->logit)) {
                best = &candidates[i];
            }
        }
        if (best == NULL) {
            break;
        }
        rfe_write_face(outputs, box, best, &faces[kept++]);
        {
            const rfe_candidate winner = *best;
            for (int32_t i = 0; i < count; i++) {
                if (candidates[i].open &&
                    (candidates[i].anchor == winner.anchor ||
                     rfe_overlaps(winner.box, candidates[i].box, iou_threshold))) {
                    candidates[i].open = 0;
                }
            }
        }
    }
    return kept;
}

#endif

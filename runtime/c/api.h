/* Face detection before and after the network, for devices without Python: a frame becomes the network's input, and the
 * network's raw outputs become faces. Step by step what the Python runtime does: the same input bytes, and the same
 * faces in the same order. Written for one detector; its constants are below.
 *
 * C99 or C++11 and later, and libm; no allocation, no state, no globals that change. All memory is the caller's, and
 * most of it is large: keep it off the stack of a microcontroller.
 *
 *     static rfe_letterbox box;                                     once for each size of frames
 *     static uint8_t input[RFE_INPUT_BYTES];
 *     static rfe_candidate candidates[RFE_MAX_CANDIDATES];          fewer will do: the best are kept
 *     static rfe_face faces[RFE_MAX_FACES];
 *
 *     rfe_letterbox_init(&box, frame_width, frame_height);
 *     rows = ...;                                                   rfe_rows_bytes(frame_width) bytes
 *     image = rfe_network_input(&box, &frame, rows, input);         run the network on image
 *     count = rfe_postprocess(outputs, &box, 0.5, 0.4, candidates, RFE_MAX_CANDIDATES, faces, RFE_MAX_FACES);
 *
 * example.c beside this file is a whole program.
 */
#ifndef RETINAFACE_EDGE_H
#define RETINAFACE_EDGE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Version of this interface: the first number changes when programs must change. */
#define RFE_VERSION_MAJOR 2
#define RFE_VERSION_MINOR 1

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define RFE_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define RFE_RESTRICT __restrict
#else
#define RFE_RESTRICT
#endif

/* ---- the detector that this header was written for ---- */

/* <constants> */
#define RFE_INPUT_BYTES (RFE_INPUT_WIDTH * RFE_INPUT_HEIGHT * 3)
#define RFE_OUTPUTS (RFE_HEADS * RFE_LEVELS)

/* ---- what programs use ---- */

#define RFE_MAX_FRAME_SIDE 32767
#define RFE_MAX_CANDIDATES 5000 /* the bounds on a frame's work that the Python runtime has by default */
#define RFE_MAX_FACES 750
/* <blend> */
#define RFE_BLENDED_SCORE 0.5 /* suppressed candidates of this score or more count towards the landmarks */
/* </blend> */

/* Returned instead of a count when an argument is invalid. */
#define RFE_BAD_ARGUMENT (-1)

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
 * Order: <heads>, each of them by rising stride. */
typedef struct {
    const void *data;
    rfe_type type;
    int32_t zero_point;
    double scale;
} rfe_output;

/* Working memory of rfe_postprocess. */
typedef struct {
    double rank;
    double box[4];
    int32_t anchor;
    int32_t open;
} rfe_candidate;

/* A face in pixels of the frame: x1, y1, x2, y2 of its box. */
typedef struct {
    double score;
    double box[4];
    /* <landmarks> */
    double landmarks[2 * RFE_LANDMARKS]; /* <order> */
    /* </landmarks> */
} rfe_face;

/* Placement and tables for frames of one size. 0, or RFE_BAD_ARGUMENT for a side below 1 or above 32767. */
static inline int32_t rfe_letterbox_init(rfe_letterbox *box, int32_t frame_width, int32_t frame_height);

/* Bytes of working memory that rfe_letterbox_run needs. */
static inline size_t rfe_rows_bytes(int32_t frame_width);

/* Write the frame into `input`, RFE_INPUT_BYTES bytes, NHWC, BGR. `rows` has rfe_rows_bytes(frame_width) bytes. */
static inline void rfe_letterbox_run(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows, uint8_t *input);

/* What the network reads for a frame: the frame's own memory where that is its input already, as a camera of this size
 * gives it, which then must stay until the network has run; otherwise `input`, written by rfe_letterbox_run. */
static inline const uint8_t *rfe_network_input(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows,
                                               uint8_t *input);

/* The faces of one frame, best first (of equal scores, the lower anchor), at most `max_faces` of them; of more than
 * `max_candidates` anchors that reach the threshold, the best are looked at. The number of faces, or RFE_BAD_ARGUMENT
 * for a threshold outside 0..1, no room for a candidate, or a scale that is not a finite number above 0. */
static inline int32_t rfe_postprocess(const rfe_output outputs[RFE_OUTPUTS], const rfe_letterbox *box,
                                      double score_threshold, double iou_threshold, rfe_candidate *candidates,
                                      int32_t max_candidates, rfe_face *faces, int32_t max_faces);

/* <align> */
/* The crop of a face that recognition networks of the ArcFace family read, size x size pixels of the frame's channels
 * in their order: bilinear samples under the similarity (Umeyama 1991) that brings the landmarks nearest to `points`,
 * x then y of each in a crop of 112 x 112, or to ArcFace's own where that is NULL. What lies outside the frame is black.
 * 0, or RFE_BAD_ARGUMENT for a size below 1 or landmarks at one point. */
static inline int32_t rfe_align(const rfe_frame *frame, int32_t frame_width, int32_t frame_height, const rfe_face *face,
                                const double *points, int32_t size, uint8_t *crop);

/* </align> */

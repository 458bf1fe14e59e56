/* The dense branch before and after its network, beside retinaface_edge.h: faces become descriptions, and what the
 * network says of them becomes vertices in pixels of the frame. No allocation; C99, or C++11 and later.
 *
 *   rfe_mesh_describe(features, &box, &face, described)     RFE_MESH_INPUTS floats for each face
 *   ... run the branch on RFE_MESH_BATCH of them ...
 *   rfe_mesh_place(&vertices, column, &box, &face, points)  RFE_MESH_VERTICES points, x y z each
 */
#ifndef RETINAFACE_EDGE_MESH_H
#define RETINAFACE_EDGE_MESH_H

#include "retinaface_edge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The dense branch that this header was written for. */
/* <constants> */
#define RFE_MESH_INPUTS (RFE_LEVELS * 5 * RFE_MESH_CHANNELS + 12)

/* Centre and size of a face's box in pixels of the input; size is the square root of its area. */
static inline double rfe_mesh_frame(const rfe_letterbox *box, const rfe_face *face, double centre[2]) {
    const double scale[2] = {(double)box->frame_width / box->width, (double)box->frame_height / box->height};
    double side[2];
    for (size_t i = 0; i < 2; i++) {
        const double low = face->box[i] / scale[i];
        const double high = face->box[i + 2] / scale[i];
        centre[i] = 0.5 * (low + high);
        side[i] = high - low;
    }
    return sqrt(side[0] * side[1]);
}

/* A position along one axis of `cells` cells: its first cell, and the share of the next. */
static inline double rfe_mesh_cell(double position, int32_t cells, int32_t *first) {
    const double inside = !(position > 0.0) ? 0.0 : position > cells - 1.0 ? cells - 1.0 : position; /* NaN is 0 */
    *first = (int32_t)inside < cells - 2 ? (int32_t)inside : cells - 2;
    return inside - *first;
}

/* What the branch reads of one face. `features` are the detector's feature outputs, by rising stride. */
static inline void rfe_mesh_describe(const rfe_output features[RFE_LEVELS], const rfe_letterbox *box,
                                     const rfe_face *face, float described[RFE_MESH_INPUTS]) {
    const double scale[2] = {(double)box->frame_width / box->width, (double)box->frame_height / box->height};
    double centre[2];
    const double size = rfe_mesh_frame(box, face, centre);
    float *next = described;
    for (int32_t level = 0; level < RFE_LEVELS; level++) {
        const double stride = rfe_strides[level];
        const int32_t width = rfe_columns_of(level);
        const int32_t height = rfe_rows_of(level);
        for (size_t point = 0; point < 5; point++) {
            int32_t left;
            int32_t top;
            const double across =
                rfe_mesh_cell(face->landmarks[2 * point] / scale[0] / stride - 0.5, width, &left);
            const double down =
                rfe_mesh_cell(face->landmarks[2 * point + 1] / scale[1] / stride - 0.5, height, &top);
            const size_t corner = ((size_t)top * (size_t)width + (size_t)left) * RFE_MESH_CHANNELS;
            const size_t below = corner + (size_t)width * RFE_MESH_CHANNELS;
            for (size_t channel = 0; channel < RFE_MESH_CHANNELS; channel++) {
                const rfe_output *feature = &features[level];
                const double upper = rfe_real(feature, corner + channel) * (1.0 - across) +
                                     rfe_real(feature, corner + RFE_MESH_CHANNELS + channel) * across;
                const double lower = rfe_real(feature, below + channel) * (1.0 - across) +
                                     rfe_real(feature, below + RFE_MESH_CHANNELS + channel) * across;
                *next++ = (float)(upper * (1.0 - down) + lower * down);
            }
        }
    }
    for (size_t i = 0; i < 10; i++) {
        *next++ = (float)(8.0 * (face->landmarks[i] / scale[i % 2] - centre[i % 2]) / size);
    }
    *next++ = (float)(log(size) / 0.69314718055994530942 - 6.0);
    *next++ = (float)(8.0 * ((face->box[2] - face->box[0]) / scale[0] / size - 1.0));
}

/* The vertices of the face that was in `column` of the batch: x, y in pixels of the frame, z away from the viewer. */
static inline void rfe_mesh_place(const rfe_output *vertices, int32_t column, const rfe_letterbox *box,
                                  const rfe_face *face, double points[3 * RFE_MESH_VERTICES]) {
    const double scale[2] = {(double)box->frame_width / box->width, (double)box->frame_height / box->height};
    const double depth = sqrt(scale[0] * scale[1]);
    double centre[2];
    const double size = rfe_mesh_frame(box, face, centre);
    for (size_t i = 0; i < RFE_MESH_VERTICES; i++) {
        const size_t first = ((size_t)column * RFE_MESH_VERTICES + i) * 3;
        for (size_t axis = 0; axis < 2; axis++) {
            points[3 * i + axis] = (rfe_real(vertices, first + axis) * size + centre[axis]) * scale[axis];
        }
        points[3 * i + 2] = rfe_real(vertices, first + 2) * size * depth;
    }
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif

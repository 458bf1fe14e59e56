/* Runs the C header on cases from standard input and writes its results to standard output; C and C++. Every buffer has
 * exactly the size that the header asks for, so that a sanitizer sees each byte beyond. Numbers are int32, then what
 * they announce:
 *   1, width, height, colour, row stride, column stride, first pixel's offset, bytes, the bytes -> the input image
 *   2, width, height, max candidates, max faces, thresholds (2 doubles), RFE_OUTPUTS x (type, zero point, scale as a double,
 *      bytes, the bytes)                                                                        -> count, the faces
 *   3, width, height, colour, row stride, column stride, first pixel's offset, size, the landmarks (10 doubles), bytes,
 *      the bytes                                                                                -> result, the crop
 */
#include "retinaface_edge.h"

#include <stdio.h>
#include <stdlib.h>

static void read_bytes(void *target, size_t bytes) {
    if (fread(target, 1, bytes, stdin) != bytes) {
        exit(3);
    }
}

static int32_t read_int(void) {
    int32_t value;
    read_bytes(&value, sizeof value);
    return value;
}

static void *read_block(void) {
    const size_t bytes = (size_t)read_int();
    void *block = malloc(bytes);
    if (block == NULL) {
        exit(4);
    }
    read_bytes(block, bytes);
    return block;
}

static void preprocess(rfe_letterbox *box) {
    uint8_t *input = (uint8_t *)malloc(RFE_INPUT_BYTES);
    uint8_t *rows = (uint8_t *)malloc(rfe_rows_bytes(box->frame_width));
    uint8_t *other;
    rfe_frame frame;
    uint8_t *bytes;
    int32_t offset;
    frame.colour = (rfe_colour)read_int();
    frame.row_stride = read_int();
    frame.column_stride = read_int();
    offset = read_int();
    bytes = (uint8_t *)read_block();
    frame.pixels = bytes + offset;
    rfe_letterbox_run(box, &frame, rows, input);
    fwrite(input, 1, RFE_INPUT_BYTES, stdout);
    other = (uint8_t *)malloc(RFE_INPUT_BYTES);
    if (memcmp(rfe_network_input(box, &frame, rows, other), input, RFE_INPUT_BYTES) != 0) {
        exit(5);
    }
    free(other);
    free(bytes);
    free(rows);
    free(input);
}

static void postprocess(const rfe_letterbox *box) {
    const int32_t max_candidates = read_int();
    const int32_t max_faces = read_int();
    rfe_candidate *candidates = (rfe_candidate *)malloc(sizeof *candidates * (size_t)max_candidates);
    rfe_face *faces = (rfe_face *)malloc(sizeof *faces * (size_t)max_faces);
    void *blocks[RFE_OUTPUTS];
    rfe_output outputs[RFE_OUTPUTS];
    double thresholds[2];
    int32_t count;
    read_bytes(thresholds, sizeof thresholds);
    for (int i = 0; i < RFE_OUTPUTS; i++) {
        outputs[i].type = (rfe_type)read_int();
        outputs[i].zero_point = read_int();
        read_bytes(&outputs[i].scale, sizeof outputs[i].scale);
        outputs[i].data = blocks[i] = read_block();
    }
    count = rfe_postprocess(outputs, box, thresholds[0], thresholds[1], candidates, max_candidates, faces, max_faces);
    fwrite(&count, sizeof count, 1, stdout);
    if (count > 0) {
        fwrite(faces, sizeof *faces, (size_t)count, stdout);
    }
    for (int i = 0; i < RFE_OUTPUTS; i++) {
        free(blocks[i]);
    }
    free(faces);
    free(candidates);
}

#ifdef RFE_LANDMARKS
#if RFE_LANDMARKS == 5
static void align(const rfe_letterbox *box) {
    rfe_frame frame;
    rfe_face face;
    uint8_t *bytes;
    uint8_t *crop;
    int32_t offset;
    int32_t size;
    int32_t result;
    size_t crop_bytes;
    frame.colour = (rfe_colour)read_int();
    frame.row_stride = read_int();
    frame.column_stride = read_int();
    offset = read_int();
    size = read_int();
    read_bytes(face.landmarks, sizeof face.landmarks);
    bytes = (uint8_t *)read_block();
    frame.pixels = bytes + offset;
    crop_bytes = (size_t)size * (size_t)size * (frame.colour == RFE_GREY ? 1 : 3);
    crop = (uint8_t *)malloc(crop_bytes);
    result = rfe_align(&frame, box->frame_width, box->frame_height, &face, NULL, size, crop);
    fwrite(&result, sizeof result, 1, stdout);
    if (result == 0) {
        fwrite(crop, 1, crop_bytes, stdout);
    }
    free(crop);
    free(bytes);
}
#define HAS_ALIGN
#endif
#endif

int main(void) {
    rfe_letterbox *box = (rfe_letterbox *)malloc(sizeof *box);
    int32_t kind;
    while (fread(&kind, sizeof kind, 1, stdin) == 1) {
        const int32_t width = read_int();
        const int32_t height = read_int();
        if (rfe_letterbox_init(box, width, height) != 0) {
            return 5;
        }
        if (kind == 1) {
            preprocess(box);
#ifdef HAS_ALIGN
        } else if (kind == 3) {
            align(box);
#endif
        } else {
            postprocess(box);
        }
    }
    free(box);
    return 0;
}

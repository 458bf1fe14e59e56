/* From a picture to faces, around a network that runs elsewhere.
 *
 *     cc -std=c99 -O3 example.c -lm -o example
 *     ./example frame.ppm input.raw                 writes the network's input, uint8 NHWC
 *     ./example frame.ppm input.raw outputs.txt     ... and prints the faces in its raw outputs
 *
 * frame.ppm is a binary PPM (P6, RGB). outputs.txt has a line for each output, by head (<heads>), then by rising
 * stride:  FILE  float32|int8|uint8  SCALE  ZERO_POINT
 */
#include "retinaface_edge.h"

#include <stdio.h>
#include <stdlib.h>

static rfe_letterbox box;
static uint8_t input[RFE_INPUT_BYTES];
static rfe_candidate candidates[RFE_MAX_CANDIDATES];
static rfe_face faces[RFE_MAX_FACES];

static void fail(const char *what, const char *name) {
    fprintf(stderr, "example: %s: %s\n", name, what);
    exit(2);
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory == NULL) {
        fail("no memory left", "example");
    }
    return memory;
}

static uint8_t *read_ppm(const char *name, int32_t *width, int32_t *height) {
    FILE *file = fopen(name, "rb");
    int w = 0;
    int h = 0;
    uint8_t *pixels;
    if (file == NULL) {
        fail("cannot be opened", name);
    }
    if (fscanf(file, "P6 %d %d 255", &w, &h) != 2 || fgetc(file) == EOF || w < 1 || h < 1 || w > RFE_MAX_FRAME_SIDE ||
        h > RFE_MAX_FRAME_SIDE) {
        fail("is not a binary PPM with values up to 255", name);
    }
    pixels = allocate((size_t)w * (size_t)h * 3);
    if (fread(pixels, 3, (size_t)w * (size_t)h, file) != (size_t)w * (size_t)h) {
        fail("ends too early", name);
    }
    fclose(file);
    *width = w;
    *height = h;
    return pixels;
}

static void read_output(const char *name, const char *type, size_t values, rfe_output *output) {
    size_t bytes = values;
    FILE *file = fopen(name, "rb");
    void *data;
    if (file == NULL) {
        fail("cannot be opened", name);
    }
    if (strcmp(type, "float32") == 0) {
        output->type = RFE_FLOAT32;
        bytes *= sizeof(float);
    } else if (strcmp(type, "int8") == 0) {
        output->type = RFE_INT8;
    } else if (strcmp(type, "uint8") == 0) {
        output->type = RFE_UINT8;
    } else {
        fail("its type is not float32, int8 or uint8", name);
    }
    data = allocate(bytes);
    if (fread(data, 1, bytes, file) != bytes || fgetc(file) != EOF) {
        fail("has not the size of this output", name);
    }
    fclose(file);
    output->data = data;
}

static void read_outputs(const char *name, rfe_output outputs[RFE_OUTPUTS]) {
    FILE *file = fopen(name, "r");
    if (file == NULL) {
        fail("cannot be opened", name);
    }
    for (int32_t i = 0; i < RFE_OUTPUTS; i++) {
        char path[1024];
        char type[16];
        double scale;
        int zero_point;
        if (fscanf(file, "%1023s %15s %lf %d", path, type, &scale, &zero_point) != 4) {
            fail("needs a line FILE TYPE SCALE ZERO_POINT for each output", name);
        }
        outputs[i].scale = scale;
        outputs[i].zero_point = zero_point;
        read_output(path, type, (size_t)rfe_anchors_of(i % RFE_LEVELS) * (size_t)rfe_channels[i / RFE_LEVELS], &outputs[i]);
    }
    fclose(file);
}

int main(int argc, char **argv) {
    rfe_frame frame = {NULL, 0, 3, RFE_RGB};
    rfe_output outputs[RFE_OUTPUTS];
    int32_t width;
    int32_t height;
    int32_t count;
    uint8_t *pixels;
    uint8_t *rows;
    FILE *file;
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: example FRAME.ppm INPUT.raw [OUTPUTS.txt]\n");
        return 2;
    }
    pixels = read_ppm(argv[1], &width, &height);
    rows = allocate(rfe_rows_bytes(width));
    frame.pixels = pixels;
    frame.row_stride = (ptrdiff_t)width * 3;
    rfe_letterbox_init(&box, width, height);
    rfe_letterbox_run(&box, &frame, rows, input);
    file = fopen(argv[2], "wb");
    if (file == NULL || fwrite(input, 1, RFE_INPUT_BYTES, file) != RFE_INPUT_BYTES || fclose(file) != 0) {
        fail("cannot be written", argv[2]);
    }
    if (argc == 4) {
        read_outputs(argv[3], outputs);
        count = rfe_postprocess(outputs, &box, 0.5, 0.4, candidates, RFE_MAX_CANDIDATES, faces, RFE_MAX_FACES);
        for (int32_t i = 0; i < count; i++) {
            printf("%.6f", faces[i].score);
            for (int32_t k = 0; k < 4; k++) {
                printf(" %.6f", faces[i].box[k]);
            }
            /* <landmarks> */
            for (int32_t k = 0; k < 2 * RFE_LANDMARKS; k++) {
                printf(" %.6f", faces[i].landmarks[k]);
            }
            /* </landmarks> */
            printf("\n");
        }
        for (int32_t i = 0; i < RFE_OUTPUTS; i++) {
            free((void *)(uintptr_t)outputs[i].data);
        }
    }
    free(rows);
    free(pixels);
    return 0;
}

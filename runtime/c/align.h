/* ---- aligned crops ---- */

/* Left eye, right eye, nose, left and right mouth corner in a crop of 112 x 112, as published with ArcFace. */
static const double rfe_arcface_points[10] = {38.2946, 51.6963, 73.5318, 51.5014, 56.0252,
                                              71.7366, 41.5493, 92.3655, 70.7299, 92.2041};

/* From crop to frame: rotation and scale as one complex factor, then the shift. 0 when there is no such similarity. */
static inline int rfe_similarity(const double *points, double scale, const double *landmarks, double factor[2],
                                 double shift[2]) {
    double from[2] = {0.0, 0.0};
    double to[2] = {0.0, 0.0};
    double spread = 0.0;
    for (size_t i = 0; i < 10; i++) {
        from[i % 2] += points[i] * scale;
        to[i % 2] += landmarks[i];
    }
    from[0] /= 5.0;
    from[1] /= 5.0;
    to[0] /= 5.0;
    to[1] /= 5.0;
    factor[0] = factor[1] = 0.0;
    for (size_t i = 0; i < 10; i += 2) {
        const double x = points[i] * scale - from[0];
        const double y = points[i + 1] * scale - from[1];
        const double u = landmarks[i] - to[0];
        const double v = landmarks[i + 1] - to[1];
        factor[0] += x * u + y * v;
        factor[1] += x * v - y * u;
        spread += x * x + y * y;
    }
    if (!(spread > 0.0)) {
        return 0;
    }
    factor[0] /= spread;
    factor[1] /= spread;
    shift[0] = to[0] - (factor[0] * from[0] - factor[1] * from[1]);
    shift[1] = to[1] - (factor[0] * from[1] + factor[1] * from[0]);
    return fabs(factor[0]) + fabs(factor[1]) > 0.0 && isfinite(factor[0]) && isfinite(factor[1]) &&
           isfinite(shift[0]) && isfinite(shift[1]);
}

static inline int32_t rfe_align(const rfe_frame *frame, int32_t frame_width, int32_t frame_height, const rfe_face *face,
                                const double *points, int32_t size, uint8_t *crop) {
    const int32_t channels = frame->colour == RFE_GREY ? 1 : 3;
    double factor[2];
    double shift[2];
    if (size < 1 || frame_width < 1 || frame_height < 1 ||
        !rfe_similarity(points == NULL ? rfe_arcface_points : points, size / 112.0, face->landmarks, factor, shift)) {
        return RFE_BAD_ARGUMENT;
    }
    for (int32_t pixel = 0; pixel < size * size; pixel++) {
        const double across = pixel % size;
        const double along = pixel / size;
        const double x = fmin(fmax(factor[0] * across - factor[1] * along + shift[0], -1.0), frame_width);
        const double y = fmin(fmax(factor[1] * across + factor[0] * along + shift[1], -1.0), frame_height);
        const int32_t left = (int32_t)floor(x);
        const int32_t top = (int32_t)floor(y);
        double total[3] = {0.0, 0.0, 0.0};
        for (int32_t tap = 0; tap < 4; tap++) {
            const int32_t column = left + tap % 2;
            const int32_t row = top + tap / 2;
            const double share = (tap < 2 ? 1.0 - (y - top) : y - top) * (tap % 2 == 0 ? 1.0 - (x - left) : x - left);
            if (column >= 0 && column < frame_width && row >= 0 && row < frame_height) {
                const uint8_t *const source = frame->pixels + frame->row_stride * row + frame->column_stride * column;
                for (int32_t channel = 0; channel < channels; channel++) {
                    total[channel] += source[channel] * share;
                }
            }
        }
        for (int32_t channel = 0; channel < channels; channel++) {
            crop[pixel * channels + channel] = (uint8_t)rint(total[channel]);
        }
    }
    return 0;
}

/* ---- boxes: four distances from the cell's origin, in units of the stride ---- */

static inline double rfe_unit(int32_t level, int32_t index) {
    (void)index;
    return rfe_strides[level];
}

/* Corners in pixels of the input; 0 when a value is damaged or the box has no area. */
static inline int rfe_decode_box(const rfe_output *output, int32_t level, int32_t index, double box[4]) {
    const size_t first = (size_t)index * 4;
    const double stride = rfe_strides[level];
    double centre[2];
    if (!rfe_usable(output, first, 4, RFE_RAW_LIMIT)) {
        return 0;
    }
    rfe_centre(level, index, centre);
    for (size_t i = 0; i < 2; i++) {
        const double before = rfe_real(output, first + i);
        const double after = rfe_real(output, first + 2 + i);
        if (!(before > -after)) {
            return 0;
        }
        box[i] = centre[i] - before * stride;
        box[2 + i] = centre[i] + after * stride;
    }
    return 1;
}

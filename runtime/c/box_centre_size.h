/* ---- boxes: shift of the centre and logarithm of the sides, in units of the anchor's size ---- */

static inline double rfe_unit(int32_t level, int32_t index) { return rfe_anchor_sizes[level][index % rfe_sizes[level]]; }

/* Corners in pixels of the input; 0 when a value is damaged. */
static inline int rfe_decode_box(const rfe_output *output, int32_t level, int32_t index, double box[4]) {
    const size_t first = (size_t)index * 4;
    const double size = rfe_unit(level, index);
    double centre[2];
    if (!rfe_usable(output, first, 2, RFE_RAW_LIMIT) || !rfe_usable(output, first + 2, 2, RFE_SIDE_LIMIT)) {
        return 0;
    }
    rfe_centre(level, index, centre);
    for (size_t i = 0; i < 2; i++) {
        const double middle = centre[i] + rfe_variances[0] * rfe_real(output, first + i) * size;
        const double half = 0.5 * size * exp(rfe_variances[1] * rfe_real(output, first + 2 + i));
        box[i] = middle - half;
        box[2 + i] = middle + half;
    }
    return 1;
}

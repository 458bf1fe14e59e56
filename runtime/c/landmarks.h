/* ---- landmarks: shifts from the anchor's centre, in the units of its box ---- */

/* In pixels of the frame. */
static inline void rfe_decode_landmarks(const rfe_output *output, int32_t level, int32_t index, const double scale[2],
                                        double landmarks[2 * RFE_LANDMARKS]) {
    const double unit = rfe_variances[0] * rfe_unit(level, index);
    double centre[2];
    rfe_centre(level, index, centre);
    for (size_t i = 0; i < 2 * RFE_LANDMARKS; i++) {
        const double value = rfe_real(output, (size_t)index * (2 * RFE_LANDMARKS) + i);
        landmarks[i] = (centre[i % 2] + unit * value) * scale[i % 2];
    }
}

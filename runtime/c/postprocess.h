/* ---- candidates, best first ---- */

/* Whether a comes after b: a lower rank, or the higher anchor of equal ones. */
static inline int rfe_after(const rfe_candidate *a, const rfe_candidate *b) {
    return a->rank < b->rank || (!(a->rank > b->rank) && a->anchor > b->anchor);
}

/* Let the candidate at `root` sink to its place in a heap whose root comes after all others. */
static inline void rfe_sink(rfe_candidate *candidates, int32_t root, int32_t count) {
    const rfe_candidate sinking = candidates[root];
    for (int32_t child = 2 * root + 1; child < count; child = 2 * root + 1) {
        if (child + 1 < count && rfe_after(&candidates[child + 1], &candidates[child])) {
            child++;
        }
        if (!rfe_after(&candidates[child], &sinking)) {
            break;
        }
        candidates[root] = candidates[child];
        root = child;
    }
    candidates[root] = sinking;
}

static inline void rfe_heap(rfe_candidate *candidates, int32_t count) {
    for (int32_t root = count / 2 - 1; root >= 0; root--) {
        rfe_sink(candidates, root, count);
    }
}

/* Keep a candidate: where there is no room, instead of the last of those that are kept, if it comes before that. */
static inline int32_t rfe_keep(rfe_candidate *candidates, int32_t count, int32_t capacity, const rfe_candidate *found) {
    if (count < capacity) {
        candidates[count++] = *found;
        if (count == capacity) {
            rfe_heap(candidates, count);
        }
    } else if (rfe_after(&candidates[0], found)) {
        candidates[0] = *found;
        rfe_sink(candidates, 0, count);
    }
    return count;
}

/* Sort a heap: what comes last goes to the end, one after the other. */
static inline void rfe_sort(rfe_candidate *candidates, int32_t count) {
    for (int32_t end = count - 1; end > 0; end--) {
        const rfe_candidate last = candidates[0];
        candidates[0] = candidates[end];
        candidates[end] = last;
        rfe_sink(candidates, 0, end);
    }
}

/* Fill in the candidate at an index within a level; 0 when it is none, or one of its values is damaged. */
static inline int rfe_decode(const rfe_output *outputs, int32_t level, int32_t index, double score_threshold,
                             rfe_candidate *candidate) {
    /* <landmarks> */
    const rfe_output *const landmarks = &outputs[2 * RFE_LEVELS + level];
    if (!rfe_usable(landmarks, (size_t)index * (2 * RFE_LANDMARKS), 2 * RFE_LANDMARKS, RFE_RAW_LIMIT)) {
        return 0;
    }
    /* </landmarks> */
    candidate->open = 1;
    return rfe_rank(outputs, level, index, score_threshold, &candidate->rank) &&
           rfe_decode_box(&outputs[RFE_LEVELS + level], level, index, candidate->box);
}

/* Candidates of one level, kept among `count` others; the new count. Scores are compared in their own type, so that
 * an anchor that is not a candidate costs one comparison. */
static inline int32_t rfe_find(const rfe_output *outputs, int32_t level, int32_t offset, double score_threshold,
                               rfe_candidate *candidates, int32_t count, int32_t capacity) {
    enum { RUN = 32 };
    const rfe_output *const score = &outputs[level];
    const int32_t anchors = rfe_anchors_of(level);
    const float *const reals = (const float *)score->data;
    const int8_t *const integers = (const int8_t *)score->data;
    const uint8_t *const naturals = (const uint8_t *)score->data;
    const double logit = rfe_least_logit(score_threshold);
    const float least_real = (float)logit;
    const double bound = score->type == RFE_FLOAT32 ? 0.0 : ceil(logit / score->scale + score->zero_point);
    const int32_t least = !(bound <= 1000.0) ? 1000 : bound < -1000.0 ? -1000 : (int32_t)bound; /* none reach NaN */
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
            if (reaches && rfe_decode(outputs, level, i, score_threshold, &found)) {
                found.anchor = offset + i;
                count = rfe_keep(candidates, count, capacity, &found);
            }
        }
    }
    return count;
}

/* ---- faces ---- */

/* Whether the intersection of two boxes over their union is above the threshold. */
static inline int rfe_overlaps(const double *a, const double *b, double iou_threshold) {
    const double width = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    const double height = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    const double overlap = (width > 0.0 ? width : 0.0) * (height > 0.0 ? height : 0.0);
    const double area_a = (a[2] - a[0]) * (a[3] - a[1]);
    const double area_b = (b[2] - b[0]) * (b[3] - b[1]);
    return overlap > iou_threshold * (area_a + area_b - overlap);
}

/* <landmarks> */
/* The landmarks that a candidate's anchor predicts, scaled to the frame. */
static inline void rfe_landmarks_of(const rfe_output *outputs, const rfe_candidate *candidate, const double *scale,
                                    double *landmarks) {
    int32_t level = 0;
    int32_t index = candidate->anchor;
    while (index >= rfe_anchors_of(level)) {
        index -= rfe_anchors_of(level++);
    }
    rfe_decode_landmarks(&outputs[2 * RFE_LEVELS + level], level, index, scale, landmarks);
}
/* </landmarks> */

/* Write candidate `i` as a face, and close it and the later ones that it overlaps. */
static inline void rfe_take_face(const rfe_output *outputs, const rfe_letterbox *box, double iou_threshold,
                                 rfe_candidate *candidates, int32_t i, int32_t count, rfe_face *face) {
    const double scale[2] = {(double)box->frame_width / box->width, (double)box->frame_height / box->height};
    /* <blend> */
    double total = rfe_score(candidates[i].rank);
    double shift[2 * RFE_LANDMARKS] = {0.0};
    /* </blend> */
    /* <landmarks> */
    rfe_landmarks_of(outputs, &candidates[i], scale, face->landmarks);
    /* </landmarks> */
    /* <no landmarks> */
    (void)outputs;
    /* </no landmarks> */
    face->score = rfe_score(candidates[i].rank);
    for (size_t k = 0; k < 4; k++) {
        face->box[k] = candidates[i].box[k] * scale[k % 2];
    }
    for (int32_t j = i + 1; j < count; j++) {
        if (!candidates[j].open || !rfe_overlaps(candidates[i].box, candidates[j].box, iou_threshold)) {
            continue;
        }
        candidates[j].open = 0;
        /* <blend> */
        const double weight = rfe_score(candidates[j].rank);
        if (weight >= RFE_BLENDED_SCORE) {
            double points[2 * RFE_LANDMARKS];
            rfe_landmarks_of(outputs, &candidates[j], scale, points);
            for (size_t k = 0; k < 2 * RFE_LANDMARKS; k++) {
                shift[k] += weight * (points[k] - face->landmarks[k]);
            }
            total += weight;
        }
        /* </blend> */
    }
    /* <blend> */
    for (size_t k = 0; k < 2 * RFE_LANDMARKS; k++) {
        face->landmarks[k] += shift[k] / total; /* their mean, weighted by score */
    }
    /* </blend> */
}

static inline int32_t rfe_postprocess(const rfe_output outputs[RFE_OUTPUTS], const rfe_letterbox *box,
                                      double score_threshold, double iou_threshold, rfe_candidate *candidates,
                                      int32_t max_candidates, rfe_face *faces, int32_t max_faces) {
    int32_t count = 0;
    int32_t kept = 0;
    int32_t offset = 0;
    if (!(score_threshold >= 0.0 && score_threshold <= 1.0 && iou_threshold >= 0.0 && iou_threshold <= 1.0) ||
        max_candidates < 1) {
        return RFE_BAD_ARGUMENT;
    }
    for (int32_t i = 0; i < RFE_OUTPUTS; i++) {
        if (outputs[i].type != RFE_FLOAT32 && !(outputs[i].scale > 0.0 && outputs[i].scale <= 1e30)) {
            return RFE_BAD_ARGUMENT;
        }
    }
    for (int32_t level = 0; level < RFE_LEVELS; level++) {
        count = rfe_find(outputs, level, offset, score_threshold, candidates, count, max_candidates);
        offset += rfe_anchors_of(level);
    }
    if (count < max_candidates) {
        rfe_heap(candidates, count);
    }
    rfe_sort(candidates, count);
    for (int32_t i = 0; i < count && kept < max_faces; i++) {
        if (candidates[i].open) {
            rfe_take_face(outputs, box, iou_threshold, candidates, i, count, &faces[kept++]);
        }
    }
    return kept;
}

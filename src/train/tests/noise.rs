use super::super::weights::to_vec;
use super::*;
use crate::artifact::Group;

fn matrix(rows: i64, columns: i64) -> Tensor {
    tch::manual_seed(5);
    Tensor::randn([rows, columns], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true)
}

/// Codes of `block` weights with all else as it is by default, but without row scales.
fn plan(block: usize) -> GroupPlan {
    GroupPlan {
        block,
        row_scale: false,
        ..GroupPlan::new(Scheme::Pq, Group::Ffn)
    }
}

fn disturbed(noise: &Noise, w: &Tensor, block: usize, rate: f64) -> Tensor {
    let seen = noise.look(w, &plan(block), 1).unwrap();
    noise.disturb(w, &plan(block), rate, &seen, None).unwrap()
}

const FORMS: [Form; 5] = [Form::Proxy, Form::Mean, Form::Exact, Form::Int8, Form::Int4];

#[test]
fn weights_stay_as_they_are() {
    let w = matrix(64, 64);
    let before = to_vec(&w);
    for form in FORMS {
        let noise = Noise::new(form, 0.5);
        for _ in 0..3 {
            let out = disturbed(&noise, &w, 8, 0.5);
            assert_ne!(to_vec(&out), before, "{form:?}");
            out.sum(Kind::Float).backward();
        }
        assert_eq!(to_vec(&w), before, "{form:?}");
    }
}

/// The rate that was asked for, block by block; clean blocks bit for bit as they were.
#[test]
fn blocks_are_drawn_whole_and_others_stay_clean() {
    let w = matrix(400, 36);
    let values = to_vec(&w);
    for (form, each) in [
        (Form::Proxy, 8),
        (Form::Mean, 8),
        (Form::Exact, 8),
        (Form::Int4, 1),
    ] {
        let noise = Noise::new(form, 0.2);
        let out = to_vec(&disturbed(&noise, &w, 8, 0.2));
        let (mut drawn, mut all) = (0, 0);
        for (row, before) in out.chunks(36).zip(values.chunks(36)) {
            for (block, before) in row.chunks(each).zip(before.chunks(each)) {
                let changed = block.iter().zip(before).filter(|(a, b)| a != b).count();
                assert!(
                    changed == 0 || changed == block.len(),
                    "{form:?}: half a block"
                );
                drawn += usize::from(changed > 0);
                all += 1;
            }
        }
        let (rate, n) = (drawn as f64 / all as f64, all as f64);
        assert!(
            (rate - 0.2).abs() < 5.0 * (0.16 / n).sqrt(),
            "{form:?}: {rate}"
        );
    }
}

/// Without rescaling the mean over draws is (1 - p) w + p q; with it, and zeros for q, it is w.
#[test]
fn the_mean_over_draws_is_as_stated() {
    let w = matrix(8, 16);
    let draws = 4000;
    for (rescale, expected) in [(false, 0.75), (true, 1.0)] {
        let noise = Noise {
            rescale,
            ..Noise::new(Form::Proxy, 0.25)
        };
        let mut sum = w.zeros_like();
        for _ in 0..draws {
            sum = tch::no_grad(|| sum + disturbed(&noise, &w, 4, 0.25));
        }
        let mean = to_vec(&(sum / f64::from(draws)));
        for (mean, w) in mean.iter().zip(to_vec(&w)) {
            // The deviation of a draw is below 0.6 |w|.
            assert!(
                (mean - expected * w).abs() < 5.0 * 0.6 * w.abs() / 63.0 + 1e-6,
                "{rescale}"
            );
        }
    }
}

#[test]
fn rate_1_quantizes_everything_and_rate_0_nothing() {
    let w = matrix(128, 64);
    for form in [Form::Exact, Form::Int8, Form::Int4] {
        let noise = Noise::new(form, 1.0);
        let out = to_vec(&disturbed(&noise, &w, 8, 1.0));
        let mut values = out.clone();
        values.sort_by(f32::total_cmp);
        values.dedup();
        match form {
            Form::Exact => {
                let blocks: std::collections::BTreeSet<Vec<u32>> = (out.chunks(8))
                    .map(|block| block.iter().map(|v| v.to_bits()).collect())
                    .collect();
                assert!(blocks.len() <= 256, "{}", blocks.len());
            }
            Form::Int4 => assert!(values.len() <= 15, "{}", values.len()),
            _ => assert!((16..256).contains(&values.len()), "{}", values.len()),
        }
        assert_eq!(to_vec(&disturbed(&noise, &w, 8, 0.0)), to_vec(&w));
    }
}

/// The surrogate is the identity: the gradient of a function of the noised weights, at these weights,
/// passes unchanged. Against finite differences of that function.
#[test]
fn gradients_pass_straight_through() {
    let w = matrix(4, 8);
    let target = Tensor::randn([4, 8], (Kind::Float, tch::Device::Cpu));
    let loss = |w: &Tensor| ((w - &target).tanh() * &target).sum(Kind::Float);
    for form in FORMS {
        let noise = Noise::new(form, 0.5);
        let seen = noise.look(&w, &plan(4), 1).unwrap();
        tch::manual_seed(9);
        let out = noise.disturb(&w, &plan(4), 0.5, &seen, None).unwrap();
        let mut leaf = w.shallow_clone();
        leaf.zero_grad();
        loss(&out).backward();
        let gradient = to_vec(&w.grad());
        let at = to_vec(&out);
        for i in 0..at.len() {
            let moved = |by: f32| {
                let mut at = at.clone();
                at[i] += by;
                loss(&Tensor::from_slice(&at).view([4, 8])).double_value(&[])
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let difference = (slope - f64::from(gradient[i])).abs();
            assert!(
                difference < 2e-3 * (1.0 + slope.abs()),
                "{form:?}: {slope} {}",
                gradient[i]
            );
        }
    }
}

/// Errors fall from `tensor` to `histogram` on weights with an outlier, and no grid is missed by more
/// than half a step.
#[test]
fn ranges_span_what_they_say() {
    let w = matrix(64, 64);
    tch::no_grad(|| {
        let _ = w.get(0).get(0).fill_(30.0);
    });
    let error = |range, form| {
        let noise = Noise {
            range,
            ..Noise::new(form, 1.0)
        };
        let out = disturbed(&noise, &w, 8, 1.0);
        tch::no_grad(|| (out - &w).square().mean(Kind::Float)).double_value(&[])
    };
    let (low, high) = tch::no_grad(|| (w.min().double_value(&[]), w.max().double_value(&[])));
    for (form, steps) in [(Form::Int8, 255.0), (Form::Int4, 15.0)] {
        let step: f64 = (high - low) / steps;
        assert!(error(Range::Tensor, form) <= step * step / 4.0);
        assert!(error(Range::Channel, form) < error(Range::Tensor, form));
    }
    assert!(error(Range::Histogram, Form::Int4) < 0.8 * error(Range::Tensor, Form::Int4));
    assert!(error(Range::Histogram, Form::Int8) <= error(Range::Tensor, Form::Int8));
}

#[test]
fn rows_of_a_table_get_their_own_codes_and_scales() {
    let w = matrix(300, 16);
    let ids = Tensor::from_slice(&[7i64, 250]);
    for form in [Form::Exact, Form::Int8, Form::Int4] {
        let noise = Noise::new(form, 1.0);
        let scaled = GroupPlan {
            row_scale: true,
            codebooks: 2,
            ..plan(8)
        };
        let seen = noise.look(&w, &scaled, 1).unwrap();
        let all = noise.disturb(&w, &scaled, 1.0, &seen, None).unwrap();
        let rows = w.index_select(0, &ids);
        let some = noise
            .disturb(&rows, &scaled, 1.0, &seen, Some(&ids))
            .unwrap();
        assert_eq!(
            to_vec(&some),
            to_vec(&all.index_select(0, &ids)),
            "{form:?}"
        );
    }
}

/// Rows of 11 values in blocks of 4: the last three places are those of 2 blocks a row, the fourth of 2 as well,
/// but of none of the last.
#[test]
fn the_mean_block_is_of_values_alone() {
    let values: Vec<f32> = (0..22).map(|n| n as f32).collect();
    let w = Tensor::from_slice(&values).view([2, 11]);
    let look = Noise::new(Form::Mean, 0.1).look(&w, &plan(4), 1).unwrap();
    let mean = to_vec(look.of_all.as_ref().unwrap());
    let expected = [0, 1, 2, 3].map(|place| {
        let at = |row: usize, block: usize| block * 4 + place + row * 11;
        let there = (0..6)
            .map(|n| (n / 3, n % 3))
            .filter(|&(_, b)| b * 4 + place < 11);
        let values: Vec<f32> = there.map(|(row, block)| values[at(row, block)]).collect();
        values.iter().sum::<f32>() / values.len() as f32
    });
    assert_eq!(mean, expected);
}

#[test]
fn forms_reach_what_they_are_of() {
    let tensor = |scheme: Scheme| PlannedTensor {
        name: "layers.0.ffn.up.weight".into(),
        group: Group::Ffn,
        shape: vec![8, 8],
        plan: GroupPlan::new(scheme, Group::Ffn),
        bytes: 0,
        too_small: false,
        kept: false,
    };
    for form in FORMS {
        let of_integers = matches!(form, Form::Int8 | Form::Int4);
        let noise = Noise::new(form, 0.1);
        let named = |group: &str| Noise {
            groups: Some(vec![group.into()]),
            ..noise.clone()
        };
        for scheme in [Scheme::Pq, Scheme::Int8, Scheme::Int4] {
            let own = of_integers == (scheme != Scheme::Pq);
            assert_eq!(noise.reaches(&tensor(scheme)), own, "{form:?} {scheme:?}");
            let asked = named("ffn").reaches(&tensor(scheme));
            assert_eq!(asked, own || form != Form::Exact, "{form:?} {scheme:?}");
            assert!(!named("attention").reaches(&tensor(scheme)));
        }
    }
}

#[test]
fn rates_change_in_the_course_of_a_stage() {
    assert_eq!(Rate::Constant(0.3).at(0.9), 0.3);
    assert_eq!(Rate::Linear([0.1, 0.5]).at(0.0), 0.1);
    assert_eq!(Rate::Linear([0.25, 0.5]).at(0.5), 0.375);
}

#[test]
fn nonsense_is_refused() {
    for (form, rate, fine) in [
        (Form::Proxy, 0.99, true),
        (Form::Proxy, 1.0, false),
        (Form::Mean, 1.0, false),
        (Form::Exact, 1.0, true),
        (Form::Int8, 1.0, true),
        (Form::Int4, 1.1, false),
        (Form::Int4, -0.1, false),
        (Form::Int4, f64::NAN, false),
    ] {
        assert_eq!(
            Noise::new(form, rate).check().is_ok(),
            fine,
            "{form:?} {rate}"
        );
    }
    let linear = Noise {
        rate: Rate::Linear([0.0, 1.0]),
        ..Noise::new(Form::Proxy, 0.1)
    };
    assert!(linear.check().is_err());
    let rescaled = Noise {
        rescale: true,
        ..Noise::new(Form::Mean, 0.1)
    };
    assert!(rescaled.check().is_err());
    let never = Noise {
        refresh: 0,
        ..Noise::new(Form::Mean, 0.1)
    };
    assert!(never.check().is_err());
}

/// Between two looks weights move to other centroids: what is multiplied with follows.
#[test]
fn codes_follow_the_weights() {
    let w = matrix(256, 16);
    let noise = Noise::new(Form::Exact, 1.0);
    for row_scale in [false, true] {
        let plan = GroupPlan {
            row_scale,
            ..plan(4)
        };
        let seen = noise.look(&w, &plan, 1).unwrap();
        let moved = tch::no_grad(|| -&w);
        let out = noise.disturb(&moved, &plan, 1.0, &seen, None).unwrap();
        let error = |out: &Tensor, w: &Tensor| {
            tch::no_grad(|| (out - w).square().mean(Kind::Float)).double_value(&[])
        };
        // Of a symmetric distribution the codebook is nearly as good for the weights' opposites; codes that
        // stayed would miss by about 90 times as much.
        let before = noise.disturb(&w, &plan, 1.0, &seen, None).unwrap();
        let (error, before) = (error(&out, &moved), error(&before, &w));
        assert!(error < 4.0 * before, "{error} {before}");
    }
}

/// What noise in int8 and int4 rounds to is what the file will hold.
#[test]
fn grids_are_those_of_the_plan() {
    let w = matrix(64, 48);
    let values = to_vec(&w);
    for (form, scheme) in [(Form::Int8, Scheme::Int8), (Form::Int4, Scheme::Int4)] {
        for (row_scale, zero_point) in [(true, false), (true, true), (false, true)] {
            let plan = GroupPlan {
                row_scale,
                zero_point,
                ..GroupPlan::new(scheme, Group::Ffn)
            };
            let stored = plan.rounded(Matrix::new(&values, 64, 48).unwrap()).unwrap();
            let noise = Noise::new(form, 1.0);
            let seen = noise.look(&w, &plan, 1).unwrap();
            let out = to_vec(&noise.disturb(&w, &plan, 1.0, &seen, None).unwrap());
            for (a, b) in out.iter().zip(&stored) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{form:?}: {a} {b}");
            }
        }
    }
}

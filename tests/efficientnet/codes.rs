//! Networks that the paper's own code has quantized: `PQConv2d` and `PQLinear` of fairseq.

use super::*;
use centroid::quant::CentroidType;

const NETWORKS: [&str; 2] = ["efficientnet-b0-ipq", "efficientnet_b0-ipq"];

fn name_of(golden: &Golden) -> Option<&str> {
    golden.network.contains('_').then_some(&golden.network[..])
}

/// A golden whose tensors are changed first.
fn changed(change: impl Fn(&mut (String, Vec<usize>, f64, f64))) -> String {
    let mut golden = Golden::read(NETWORKS[0]);
    golden.tensors.iter_mut().for_each(change);
    let folder = golden.checkpoint();
    let read = Conversion::efficientnet(folder.path(), Some("efficientnet-b0"), &pq());
    let error = match read {
        Ok(conversion) => conversion.to_bytes(&|_| ()).err(),
        Err(error) => Some(error),
    };
    let error = error.expect("an error");
    assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
    error.to_string()
}

fn pq() -> ConvertOptions {
    let mut plan = Plan::new(Scheme::Pq);
    let f16 = |group: &mut GroupPlan| group.centroid_type = CentroidType::F16;
    plan.set_all(f16).unwrap();
    ConvertOptions {
        plan,
        ..ConvertOptions::default()
    }
}

/// fairseq decodes them as we do, windows, filters and matrices, batch norms folded in.
#[test]
fn decoded_codes_answer_as_fairseqs_modules() {
    for network in NETWORKS {
        let golden = Golden::read(network);
        let artifact = golden.convert(&golden.checkpoint(), Plan::new(Scheme::F32));
        let found = logits(&artifact, options(Mode::Exact, 1), &golden.images());
        let worst = largest(&found, &golden.logits);
        println!("{network}: {worst}");
        assert!(worst <= EXACT_BUDGET, "{network}: {worst}");
    }
}

#[test]
fn codes_of_convolutions_are_stored_as_they_are() {
    for network in NETWORKS {
        let golden = Golden::read(network);
        let folder = golden.checkpoint();
        let conversion = Conversion::efficientnet(folder.path(), name_of(&golden), &pq()).unwrap();
        let note = "81 matrices keep the codes and centroids that the checkpoint has, in blocks of 2 and 4 and 9 and 25";
        let notes = conversion.notes();
        assert!(notes.iter().any(|n| n == note), "{notes:?}");
        // Two for a layer: its weight and its bias.
        for tensor in conversion.plan().iter().step_by(2) {
            let (kept, stem) = (tensor.kept, tensor.name == "stem.weight");
            assert_eq!(kept, !stem, "{tensor}");
            if kept {
                // Squeeze, excite and the classifier have no batch norm.
                let plain = ["squeeze", "excite", "classifier"];
                let plain = plain.iter().any(|part| tensor.name.contains(part));
                assert_eq!(tensor.plan.row_scale, !plain, "{tensor}");
                let centroids = match tensor.plan.block {
                    9 | 25 => 16,
                    _ => 32,
                };
                assert_eq!(tensor.plan.centroids, centroids, "{tensor}");
            }
        }
        let (_, report) = conversion.to_bytes(&|_| ()).unwrap();
        // Nothing but centroids and factors is rounded, both to f16.
        for tensor in report.tensors.iter().filter(|t| t.scheme == Scheme::Pq) {
            let error = tensor.relative_error.unwrap();
            assert!(error < 5e-4, "{}: {error}", tensor.name);
        }
        let artifact = golden.convert(&folder, pq().plan);
        let images = golden.images();
        let exact = logits(&artifact, options(Mode::Exact, 1), &images);
        let worst = largest(&exact, &golden.logits);
        let int8 = logits(&artifact, options(Mode::Int8, 1), &images);
        let rounded = largest(&int8, &golden.logits);
        println!("{network}: exact {worst}, int8 {rounded}");
        assert!(worst < 0.002, "{network}: {worst}");
        assert!(rounded < 0.05, "{network}: {rounded}");
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let conv = "_blocks.3._expand_conv";
    // A code without a centroid.
    let text = changed(|tensor| {
        if tensor.0 == format!("{conv}.assignments") {
            tensor.2 = 0.0;
            tensor.3 = 64.0;
        }
    });
    assert!(text.contains(&format!("{conv}.assignments")), "{text}");
    assert!(text.contains("there are 32 centroids"), "{text}");
    // Codes for other shapes.
    for (ending, shape, words) in [
        ("assignments", vec![863], "863 codes for 144 rows"),
        (
            "assignments",
            vec![144],
            "[144, 4] where the network has [144, 24]",
        ),
        (
            "centroids",
            vec![32, 3],
            "[144, 18] where the network has [144, 24]",
        ),
        ("centroids", vec![300, 4], "300 centroids"),
        ("centroids", vec![32], "shape [32]"),
        ("assignments", vec![432, 2], "[432, 2]"),
    ] {
        let name = format!("{conv}.{ending}");
        let text = changed(|tensor| {
            if tensor.0 == name {
                tensor.1 = shape.clone();
            }
        });
        assert!(text.contains(conv) && text.contains(words), "{text}");
    }
    // Centroids that are no numbers.
    let text = changed(|tensor| {
        if tensor.0 == format!("{conv}.centroids") {
            tensor.2 = f64::NAN;
        }
    });
    assert!(
        text.contains(conv) && text.contains("its centroids"),
        "{text}"
    );
    // What folding makes of a batch norm is its fault.
    let norm = "_blocks.3._bn1";
    let text = changed(|tensor| {
        if tensor.0 == format!("{norm}.bias") {
            tensor.2 = 1e6;
        }
    });
    assert!(text.contains(&format!("{norm}.bias")), "{text}");
    assert!(text.contains("model.safetensors"), "{text}");
    // Weights beside the codes.
    let text = changed(|tensor| {
        if tensor.0 == format!("{conv}.counts") {
            tensor.0 = format!("{conv}.weight");
        }
    });
    assert!(text.contains(&format!("{conv}.weight")), "{text}");
}

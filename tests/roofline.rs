//! What `bench --roofline` counts, in a process of its own: the counters are the process's.

use std::path::Path;

use centroid::convert::{Architecture, Conversion, ConvertOptions};
use centroid::{Artifact, ImageClassifier, Options, Scheme, SentenceEmbedder};

#[test]
fn all_products_of_linear_layers_are_counted_and_only_while_asked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/minilm-l6.centroid");
    let options = Options::new().threads(1);
    let model = SentenceEmbedder::new(Artifact::open(path).unwrap(), options).unwrap();
    let texts: [&[u32]; 2] = [&[101, 2023, 2003, 102], &[101, 102]];
    let run = || model.embed_ids(&texts).map(drop);
    run().unwrap();
    for _ in 0..2 {
        let (products, seconds) = centroid::bench::linear_layers(run).unwrap();
        // Six layers of four projections and two feed-forward products, for every token.
        let layer = 4 * 384 * 384 + 2 * 384 * 1536;
        assert_eq!(products, f64::from(6 * layer * 6));
        assert!(seconds > 0.0);
        run().unwrap();
    }
    convolutions_count();
}

/// The same for a network of images, whose products are a part of something larger.
fn convolutions_count() {
    let lite0 = Architecture::EfficientNetLite0;
    let options = ConvertOptions {
        plan: lite0.default_plan(Scheme::Pq),
        ..Default::default()
    };
    let bytes = Conversion::random(lite0, &options)
        .unwrap()
        .to_bytes(&|_| ());
    let artifact = Artifact::from_bytes(&bytes.unwrap().0).unwrap();
    let image = vec![0.5; 224 * 224 * 3];
    for threads in [1, 2] {
        let options = Options::new().threads(threads);
        let model = ImageClassifier::new(artifact.clone(), options).unwrap();
        let run = || model.classify_inputs(&[&image]).map(drop);
        let (products, seconds) = centroid::bench::linear_layers(run).unwrap();
        // Stem, blocks and features by their pixels, and the classifier; no depthwise filter.
        assert_eq!(products, 350_655_488.0);
        assert!(seconds > 0.0);
    }
}

//! What `bench --roofline` counts, in a process of its own: the counters are the process's.

use std::path::Path;

use centroid::{Artifact, Options, SentenceEmbedder};

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
}

use super::*;
use crate::artifact::{Artifact, ModelKind, NewValues, Writer};
use crate::convert::{Architecture, Conversion, ConvertOptions, Model};
use crate::models::efficientnet::EfficientNet;
use crate::nn::{Context, Mode};
use crate::quant::rng::Rng;

/// Values of -1 to 1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| 2.0 * rng.uniform() - 1.0).collect()
}

/// A network with weights that keep values about as large as they are.
fn network(architecture: Architecture) -> (Conversion, Vec<Vec<f32>>) {
    let options = ConvertOptions {
        image_size: Some(37),
        ..ConvertOptions::default()
    };
    let conversion = Conversion::random(architecture, &options).unwrap();
    let values = (conversion.tensors.iter().enumerate()).map(|(seed, tensor)| {
        let (rows, columns) = tensor.matrix();
        let scale = match tensor.name.ends_with(".bias") {
            true => 0.1,
            false => (6.0 / columns as f32).sqrt(),
        };
        let values = noise(seed as u64 + 1, rows * columns);
        values.into_iter().map(|v| v * scale).collect()
    });
    let values = values.collect();
    (conversion, values)
}

fn config(conversion: &Conversion) -> &Config {
    match &conversion.model {
        Model::Image(config) => config,
        Model::Text(_) => panic!(),
    }
}

#[test]
fn both_networks_compute_what_the_runtime_does() {
    for architecture in [
        Architecture::EfficientNetLite0,
        Architecture::EfficientNetB0,
    ] {
        let (conversion, values) = network(architecture);
        let config = config(&conversion);
        let mut writer = Writer::new(ModelKind::EfficientNet, config.to_body().unwrap());
        let image = noise(99, 37 * 37 * 3);
        let taken = vec![[image.clone(), image.clone()]];
        let mut pictures = Pictures::new(config, taken).unwrap();
        for (tensor, values) in conversion.tensors.iter().zip(&values) {
            let stored = NewValues::F32(values.clone());
            let (name, group, layout) = (&tensor.name, tensor.group, tensor.layout);
            (writer.tensor(name, group, layout, &tensor.shape, stored)).unwrap();
            pictures.quantized(name, values, values.clone());
        }
        writer.labels(conversion.labels.as_ref().unwrap()).unwrap();
        let artifact = Artifact::from_bytes(&writer.into_bytes().unwrap()).unwrap();
        let context = Context {
            isa: pictures.machine.0,
            threads: Threads(1),
            mode: Mode::Exact,
        };
        let network = EfficientNet::load(&artifact).unwrap();
        let expected = network.forward(context, &image);
        pictures.advance_to(Part::Classifier).unwrap();
        for which in [ORIGINAL, QUANTIZED] {
            let found = pictures.run(which, &pictures.taken[0][which], None);
            let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
            assert!(largest > 0.1 && found.len() == expected.len());
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * largest, "{a} {b} of {largest}");
            }
        }
    }
}

#[test]
fn biases_take_up_constant_errors() {
    let (conversion, values) = network(Architecture::EfficientNetB0);
    let config = config(&conversion);
    let taken = (0..3).map(|seed| {
        let image = noise(50 + seed, 37 * 37 * 3);
        [image.clone(), image]
    });
    let mut pictures = Pictures::new(config, taken.collect()).unwrap();
    // The mean of each output before the activation, by the definition of the layer that comes next.
    for (at, (tensor, values)) in conversion.tensors.iter().zip(&values).enumerate() {
        let name = &tensor.name;
        let (rows, columns) = tensor.matrix();
        let of_block = name.starts_with("blocks.1.") || name.starts_with("blocks.0.");
        if !of_block && name != "stem.weight" && name != "stem.bias" {
            break;
        }
        pictures.inputs(name).unwrap();
        if let Some(layer) = name.strip_suffix(".bias") {
            let adjusted = pictures.bias(name, values);
            let [original, quantized] =
                [(ORIGINAL, &values[..]), (QUANTIZED, &adjusted[..])].map(|(which, bias)| {
                    let weight = &pictures.tensors[&format!("{layer}.weight")][which];
                    means(&pictures, which, layer, weight, bias)
                });
            for (channel, (a, b)) in original.iter().zip(&quantized).enumerate() {
                assert!((a - b).abs() < 1e-4, "{name} {channel}: {a} {b}");
            }
            let moved = adjusted.iter().zip(values).map(|(a, b)| (a - b).abs());
            let moved = moved.fold(0f32, f32::max);
            // Squeezed values of no pixel, and the first layer's weights, which stay, are alike.
            assert_eq!(moved > 1e-3, layer != "stem", "{name}: {moved}");
            pictures.quantized(name, values, adjusted);
        } else {
            let shift = if name == "stem.weight" { 0.0 } else { 0.3 };
            let noise = noise(at as u64 + 500, rows * columns);
            let scale = shift / (columns as f32).sqrt();
            let others = values.iter().zip(noise).map(|(v, n)| v + scale * (1.0 + n));
            pictures.quantized(name, values, others.collect());
        }
    }
}

/// Of a layer's outputs over all pictures and pixels, without an activation.
fn means(
    pictures: &Pictures,
    which: usize,
    layer: &str,
    weight: &Stored,
    bias: &[f32],
) -> Vec<f64> {
    let short = layer.rsplit('.').next().unwrap();
    let mut sums = vec![0f64; bias.len()];
    let mut rows = 0;
    for taken in &pictures.taken {
        let x = pictures.run(which, &taken[which], Some(short));
        let y = match (short, pictures.part) {
            ("depthwise", Part::Block(at)) => {
                let windows = &pictures.windows.1[at];
                let (channels, taps) = (bias.len(), windows.kernel * windows.kernel);
                // Windows of all channels as rows, of which each channel takes its own.
                let mut rows = vec![0.0; windows.pixels() * taps * channels];
                conv::gather(Threads(1), windows, channels, &x, &mut rows);
                let pixel = |row: &[f32]| -> Vec<f32> {
                    let channel = |c: usize| -> f32 {
                        let filter = &weight.values[c * taps..][..taps];
                        let products =
                            (filter.iter().enumerate()).map(|(tap, f)| f * row[tap * channels + c]);
                        products.sum::<f32>() + bias[c]
                    };
                    (0..channels).map(channel).collect()
                };
                rows.chunks_exact(taps * channels).flat_map(pixel).collect()
            }
            _ => {
                let columns = weight.values.len() / bias.len();
                let mut y = vec![0.0; x.len() / columns * bias.len()];
                product(pictures.machine, weight, Some(bias), &x, &mut y);
                y
            }
        };
        for row in y.chunks_exact(bias.len()) {
            rows += 1;
            let pairs = sums.iter_mut().zip(row);
            pairs.for_each(|(s, &v)| *s += f64::from(v));
        }
    }
    sums.iter().map(|sum| sum / f64::from(rows)).collect()
}

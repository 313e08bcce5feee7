use super::archive::{network, tensor};
use super::*;

#[test]
fn a_failed_operation_is_reported_with_its_cause_and_a_remedy() {
    let code = "Tensor:\n    y = torch.permute(x, [0, 2, 3, 1])\n    return torch.add(torch.view(y, [1, -1, 3]), self.grid)";
    let bytes = network(code, &[("grid", tensor(&[1, 1024, 3], &vec![0.0; 3072]))], &[]);
    refusal(
        detect(&bytes, NetworkOptions::default()),
        &["net.pt", "the network failed on inputs of 1 images of 64 x 64 pixels", "The size of tensor a", "letterbox.size"],
    );
    let code = "Tensor:\n    return torch.conv2d(x, self.weight)";
    let bytes = network(code, &[("weight", tensor(&[1, 4, 1, 1], &[0.0; 4]))], &[]);
    refusal(detect(&bytes, NetworkOptions::default()), &["channels"]);
    let code = "Tensor:\n    return torch.matmul(torch.to(x, 5), self.weight)";
    let bytes = network(code, &[("weight", tensor(&[64, 64], &[0.0; 4096]))], &[]);
    refusal(detect(&bytes, NetworkOptions::default()), &["--precision fp16"]);
}

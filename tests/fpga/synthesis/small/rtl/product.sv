// SPDX-License-Identifier: Apache-2.0

// A registered product.
module product #(
  parameter int unsigned W = 8
) (
  input  logic                  clk_i,
  input  logic signed [W-1:0]   a_i,
  input  logic signed [W-1:0]   b_i,
  output logic signed [2*W-1:0] p_o
);
  always_ff @(posedge clk_i) p_o <= a_i * b_i;
endmodule

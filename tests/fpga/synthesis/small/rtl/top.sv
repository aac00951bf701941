// SPDX-License-Identifier: Apache-2.0

// Something of everything: equal and different instances, a block RAM, a LUT RAM, an accumulator.
module top
  import small_pkg::*;
(
  input  logic                  clk_i,
  input  logic                  rst_i,
  input  logic [LANES-1:0][7:0] a_i,
  input  logic [LANES-1:0][7:0] b_i,
  output logic [31:0]           sum_o,
  input  logic                  we_i,
  input  logic [8:0]            addr_i,
  output logic [31:0]           data_o,
  output logic [7:0]            small_o
);
  logic [LANES-1:0][15:0] p;
  logic [31:0]            wide;

  for (genvar i = 0; i < LANES; i++) begin : gen_lane
    product u_product (.clk_i, .a_i(a_i[i]), .b_i(b_i[i]), .p_o(p[i]));
  end
  product #(.W(16)) u_wide (.clk_i, .a_i(a_i[1:0]), .b_i(b_i[1:0]), .p_o(wide));

  (* ram_style = "block" *) logic [31:0] mem [512];
  always_ff @(posedge clk_i) begin
    if (we_i) mem[addr_i] <= wide;
    data_o <= mem[addr_i];
  end

  (* ram_style = "distributed" *) logic [7:0] few [16];
  always_ff @(posedge clk_i) if (we_i) few[addr_i[3:0]] <= a_i[0];
  assign small_o = few[addr_i[7:4]];

  always_ff @(posedge clk_i) begin
    if (rst_i) sum_o <= '0;
    else sum_o <= sum_o + 32'(p[0]) + 32'(p[1]) + 32'(p[2]) + wide;
  end
endmodule
